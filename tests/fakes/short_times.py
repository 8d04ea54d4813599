"""The product's waits, shortened: for tests of what comes after them."""

from __future__ import annotations

import pytest

from edge import admission
from edge.core import dispatch, problems
from trimtab.policy import queue, suspicion

SOON_S = 0.05
WAITS = {
    admission: ["PUMP_PERIOD_S"],
    dispatch: ["PUSH_BACK_S"],
    problems: ["PROBE_S", "AGAIN_S", "FULL_S"],
    queue: ["RETRY_AFTER_MAX_S"],
    suspicion: ["CAP_S"],
}


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that callers, queues and doubts wait for comes in 50 ms."""
    for module, names in WAITS.items():
        for name in names:
            monkeypatch.setattr(module, name, SOON_S)

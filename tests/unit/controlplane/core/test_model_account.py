"""What a model can take, and what binds it, in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.core import model_account
from controlplane.core.model_account import ModelCase
from trimtab.views import Concern, Explanation, PoolView

IDLE = PoolView("m", 2, 2, 40, 40, inflight=3)
FULL = replace(IDLE, inflight=40, queued=12)
HELD = Explanation(
    "r2", "r2 gets no new requests: intent cordoned by ada", False, "", (), "", ("ctl uncordon r2",)
)
CASE = ModelCase("m", IDLE, (), 0.0, None)
CASES: dict[str, tuple[ModelCase, Concern, str]] = {
    "idle": (CASE, Concern.FINE, "m is served, and nothing binds: 3 of 40 slots used, nobody"),
    "full": (
        replace(CASE, pool=FULL, queued_work=600.0, work_per_s=200.0),
        Concern.LIMITS,
        "m is served, but room: full: 40 of 40 slots used, 12 requests wait, a new one would wait "
        "3.0 s",
    ),
    "pace unknown": (replace(CASE, pool=FULL), Concern.LIMITS, "how long is not known yet"),
    "held": (
        replace(CASE, pool=replace(IDLE, open=1, open_slots=20), odd=(HELD,)),
        Concern.LIMITS,
        "m is served, but capacity: 20 of 40 healthy slots open on 1 of 2 replicas: "
        "r2: intent cordoned by ada",
    ),
    "closed": (
        replace(CASE, pool=replace(IDLE, open=0, open_slots=0), odd=[HELD] * 2),
        Concern.BLOCKS,
        "m is not served: 0 of 40 healthy slots open on 0 of 2 replicas: r2: intent",
    ),
    "ramping": (replace(CASE, pool=replace(IDLE, open_slots=10)), Concern.LIMITS, "10 of 40"),
    "refusing": (
        replace(CASE, pool=replace(IDLE, shed_1m=3, requests_1m=9)),
        Concern.LIMITS,
        "but refusals: 3 of 9 requests refused in the last minute",
    ),
    "alarm": (replace(CASE, pool=replace(IDLE, alarm="all fail")), Concern.LIMITS, "all fail"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_line_says_what_binds(name: str) -> None:
    case, concern, words = CASES[name]
    found = model_account.tell(case)
    assert words in found.headline
    assert found.concern is concern


def test_what_is_held_back_is_named_with_the_command_that_helps() -> None:
    found = model_account.tell(CASES["held"][0])
    assert found.advice == ("ctl uncordon r2", "ctl explain replica r2")
    assert HELD.headline in {finding.text for finding in found.findings}

"""A control plane to talk to, and a place without colours or settings of the developer's own."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator

import pytest

from tests.fakes.accounts import ACCOUNTS
from tests.fakes.admin import FakeAdmin
from tests.fakes.fleet import EVENTS, FACTS, FLEET, WHY_GPU0, WHY_GPU1


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same output on every machine."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TRIMTAB_SERVER", "TRIMTAB_CONTEXT", "TRIMTAB_TLS_DIR"):
        monkeypatch.setenv(name, "")  # ctl sets some of them: after a test they are as before it
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRIMTAB_CONFIG", "/not/there/ctl.yaml")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def admin(tmp_path: pathlib.Path) -> Iterator[FakeAdmin]:
    """A control plane on a unix socket that shows FLEET."""
    fake = FakeAdmin(f"unix:{tmp_path / 'control.sock'}", FLEET).start()
    fake.explanations = {"gpu0": WHY_GPU0, "gpu1": WHY_GPU1}
    fake.accounts = dict(ACCOUNTS)
    fake.events = list(EVENTS)
    fake.facts = FACTS
    yield fake
    fake.stop()

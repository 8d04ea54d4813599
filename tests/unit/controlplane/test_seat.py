"""The leader's seat: who waits for it, and how many."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
import pytest

from controlplane import seat as seat_module
from controlplane.core.placement import Placement
from controlplane.seat import Seat
from controlplane.settings import Settings
from tests.fakes.store import FakeStore
from tests.fakes.wait import until
from trimtab.model import EdgePolicy
from trimtab.runtime.targets import LEADER_METADATA, LOST_METADATA
from trimtab.runtime.tasks import TaskRunner

SETTINGS = Settings("lab", "cp1", "0", Placement(()), (), EdgePolicy(), stale_s=2.0)
NOBODY = (grpc.StatusCode.UNAVAILABLE, "no control plane leads now", {LEADER_METADATA: ""})
NAMED = (grpc.StatusCode.UNAVAILABLE, "the leader is cp2:1", {LEADER_METADATA: "cp2:1"})


class RefusedError(Exception):
    """How the fake ends a call."""


class FakeContext:
    """As much of a call as the seat looks at."""

    def __init__(self, lost: str = "") -> None:
        self._lost = lost

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ((LOST_METADATA, self._lost),)

    async def abort(self, code: grpc.StatusCode, details: str, trailing: Any) -> NoReturn:
        raise RefusedError(code, details, dict(trailing))


async def call(seat: Seat, lost: str = "") -> Any:
    """What one call is told."""
    try:
        return await seat.loop_or_refuse(FakeContext(lost))  # type: ignore[arg-type]
    except RefusedError as refusal:
        return refusal.args


async def test_who_lost_the_leader_waits_for_the_next_election_also_if_the_same_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seat_module, "PATIENCE_S", 60.0)
    seat = Seat(SETTINGS, FakeStore())
    seat.leave("cp2:1")
    async with TaskRunner() as runner:
        held = runner.once("call", call(seat, lost="cp2:1"))
        await until(lambda: seat.waiting == 1)
        seat.leave("")
        seat.leave("cp2:1")
        assert await held == NAMED


async def test_calls_that_wait_for_an_election_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seat_module, "WAITING_LIMIT", 2)
    monkeypatch.setattr(seat_module, "PATIENCE_S", 60.0)
    seat = Seat(SETTINGS, FakeStore())
    async with TaskRunner() as runner:
        held = [runner.once(f"call {number}", call(seat)) for number in range(2)]
        await until(lambda: seat.waiting == 2)
        assert await call(seat) == NOBODY, "one too many is not held"
        seat.leave("cp2:1")
        assert [await one for one in held] == [NAMED, NAMED]
    assert seat.waiting == 0

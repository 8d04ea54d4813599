"""edge/alarm: as asyncio.timeout, whether due soon or late, and moved to and fro."""

from __future__ import annotations

import asyncio
import math

import pytest

from edge import alarm
from edge.alarm import RangError, Watch


@pytest.fixture(params=["near", "far"], autouse=True)
def _soon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether alarms of these tests have a timer of their own at first."""
    if request.param == "far":
        monkeypatch.setattr(alarm, "LOOK_PERIOD_S", 0.01)
        monkeypatch.setattr(alarm, "SOON_S", 0.02)


async def test_it_rings_when_time_is_up_and_not_before() -> None:
    watch = Watch()
    began_s = watch.loop.time()
    with pytest.raises(RangError), watch.alarm(0.05):
        await asyncio.Event().wait()
    assert watch.loop.time() - began_s >= 0.05
    with watch.alarm(math.inf), watch.alarm(60.0):
        await asyncio.sleep(0)


async def test_signs_of_life_move_it_and_it_can_be_pulled() -> None:
    watch = Watch()
    with watch.alarm(0.05) as moved:
        moved.within(60.0)
        await asyncio.sleep(0.07)
    for seconds in (math.inf, 60.0):
        pulled = watch.alarm(seconds)
        watch.loop.call_soon(pulled.now)
        with pytest.raises(RangError), pulled:
            await asyncio.Event().wait()


async def test_of_two_the_one_that_is_due_rings() -> None:
    watch = Watch()
    with pytest.raises(RangError), watch.alarm(0.03), watch.alarm(60.0):
        await asyncio.Event().wait()
    with watch.alarm(60.0), pytest.raises(RangError), watch.alarm(0.03):
        await asyncio.Event().wait()


async def test_who_is_cancelled_by_others_stays_cancelled_also_if_it_rings_just_then() -> None:
    async def waits() -> None:
        with Watch().alarm(60.0) as pulled:
            ringing.append(pulled)
            await asyncio.Event().wait()

    for rings in (False, True):
        ringing: list[alarm.Alarm] = []
        async with asyncio.TaskGroup() as group:
            task = group.create_task(waits())
            while not ringing:  # noqa: ASYNC110
                await asyncio.sleep(0)
            if rings:
                ringing[0].now()
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()


async def test_nothing_is_kept_of_those_that_are_over() -> None:
    watch = Watch()
    for _ in range(3):
        with watch.alarm(60.0) as over:
            over.within(30.0)
            over.within(0.5)
            over.within(60.0)
            await asyncio.sleep(0)
    assert not watch._far

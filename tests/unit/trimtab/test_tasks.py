"""Background work can't die unseen, and the first cause is what comes out."""

from __future__ import annotations

import asyncio
import gc

import pytest

from trimtab.runtime.tasks import TaskEndedError, TaskRunner, first_cause


class Recorder:
    """Work that notes how it ended."""

    def __init__(self) -> None:
        self.ended = ""

    async def sleep_for_good(self) -> None:
        """Wait until cancelled."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


async def fail(message: str) -> None:
    """Work that breaks at once."""
    raise ValueError(message)


async def number(value: int) -> int:
    """Work that ends."""
    await asyncio.sleep(0)
    return value


async def test_leaving_cancels_eternal_work_and_waits_for_it() -> None:
    recorder = Recorder()
    async with TaskRunner() as tasks:
        tasks.forever("sleeper", recorder.sleep_for_good())
        await asyncio.sleep(0)
    assert recorder.ended == "cancelled"


async def test_leaving_waits_for_finite_work() -> None:
    async with TaskRunner() as tasks:
        task = tasks.once("number", number(7))
    assert task.result() == 7


async def test_first_error_cancels_the_others_and_comes_out_plain() -> None:
    recorder = Recorder()

    async def scenario() -> None:
        async with TaskRunner() as tasks:
            tasks.forever("sleeper", recorder.sleep_for_good())
            await asyncio.sleep(0)
            tasks.forever("breaks", fail("first"))
            await asyncio.Event().wait()

    with pytest.raises(ValueError, match=r"^first$"):
        await scenario()
    assert recorder.ended == "cancelled"


async def test_eternal_work_that_returns_is_an_error() -> None:
    async def scenario() -> None:
        async with TaskRunner() as tasks:
            tasks.forever("counter", number(1))
            await asyncio.Event().wait()

    with pytest.raises(TaskEndedError, match=r"^counter ended"):
        await scenario()


async def test_the_blocks_own_error_wins_over_what_it_causes() -> None:
    async def breaks_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("consequence")

    async def scenario() -> None:
        async with TaskRunner() as tasks:
            tasks.forever("fragile", breaks_when_cancelled())
            await asyncio.sleep(0)
            await fail("cause")

    with pytest.raises(ValueError, match=r"^cause$"):
        await scenario()


async def test_an_errors_own_cause_is_kept() -> None:
    async def chained() -> None:
        raise ValueError("outer") from KeyError("inner")

    async def scenario() -> None:
        async with TaskRunner() as tasks:
            tasks.forever("chained", chained())
            await asyncio.Event().wait()

    with pytest.raises(ValueError, match=r"^outer$") as error:
        await scenario()
    assert isinstance(error.value.__cause__, KeyError)


async def test_cancelling_the_owner_cancels_its_work() -> None:
    recorder = Recorder()
    inside = asyncio.Event()

    async def owner() -> None:
        async with TaskRunner() as tasks:
            tasks.forever("sleeper", recorder.sleep_for_good())
            await asyncio.sleep(0)
            inside.set()
            await asyncio.Event().wait()

    async with TaskRunner() as outer:
        task = outer.once("owner", owner())
        await inside.wait()
        task.cancel()
    assert task.cancelled()
    assert recorder.ended == "cancelled"


def test_first_cause_looks_into_nested_groups() -> None:
    inner = ExceptionGroup("inner", [KeyError("a"), ValueError("b")])
    cause = first_cause(ExceptionGroup("outer", [inner, TypeError("c")]))
    assert isinstance(cause, KeyError)


async def test_eternal_work_that_never_began_is_closed_quietly() -> None:
    async with TaskRunner() as runner:
        runner.forever("late", asyncio.Event().wait())
    gc.collect()  # a coroutine that was never awaited would warn here, and warnings are errors

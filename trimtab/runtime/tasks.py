"""Background work that can't die unseen.

Rules: every task belongs to a TaskRunner; the first error cancels the others, all are waited for,
and it comes out of the `async with`; a task started with `forever` that returns is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class TaskEndedError(RuntimeError):
    """An eternal task returned."""


class TaskRunner:
    """Owns tasks for the length of an `async with` block; leaving it cancels the eternal ones."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._eternal: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._eternal:
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # The group lists the block's own error last, after those of tasks it then cancelled.
            cause = error if isinstance(error, Exception) else first_cause(group)
            raise cause from cause.__cause__

    def forever(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        """Start work that must outlive the block."""
        task = self._group.create_task(_never_returns(name, work), name=name)
        self._eternal.add(task)
        task.add_done_callback(self._eternal.discard)
        task.add_done_callback(lambda _: work.close())  # it may be cancelled before it began

    def once(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that may end; the block waits for it."""
        return self._group.create_task(work, name=name)


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain exception inside nested groups."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner


async def _never_returns(name: str, work: Coroutine[Any, Any, object]) -> None:
    await work
    raise TaskEndedError(f"{name} ended, but must run for as long as the process")

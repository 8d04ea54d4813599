"""A time limit on what the current task does, which may move.

Rules: as asyncio.timeout, whose cost is three times this, it cancels the task, and a cancellation
by anybody else stays one; to move it costs no more than a number, as the timer looks only when it
was to ring.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self


class RangError(TimeoutError):
    """Time was up."""


class Alarm:
    """`with Alarm(seconds) as alarm:`; infinite seconds never ring by themselves."""

    __slots__ = ("_cancels", "_due_s", "_looks_s", "_loop", "_rang", "_task", "_timer")

    def __init__(self, within_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._due_s = self._loop.time() + within_s
        self._looks_s = math.inf
        self._rang = False
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> None:
        """It is to ring so long from now; too late once it has rung."""
        self._due_s = self._loop.time() + seconds
        if self._due_s < self._looks_s:
            self._look_at(self._due_s)

    def now(self) -> None:
        """Ring."""
        self.within(0.0)

    def _look_at(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._rang and due_s < math.inf:
            self._looks_s = due_s
            self._timer = self._loop.call_at(due_s, self._look)

    def _look(self) -> None:
        if self._due_s > self._looks_s:  # it was moved meanwhile
            self._look_at(self._due_s)
        else:
            self._rang = True
            self._task.cancel()

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cancelled")
        self._task, self._cancels = task, task.cancelling()
        self._look_at(self._due_s)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        own = self._rang and self._task.uncancel() <= self._cancels
        if own and kind is asyncio.CancelledError:
            raise RangError from error

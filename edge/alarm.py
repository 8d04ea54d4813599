"""Time limits on what tasks do, which may move.

Rules: as asyncio.timeout, whose cost is five times this, an alarm cancels the task, and a
cancellation by anybody else stays one. To move one costs no more than a number, and one that is not
due soon costs no timer: its watch looks at all of these once a second.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

LOOK_PERIOD_S = 1.0
SOON_S = 2.0 * LOOK_PERIOD_S


class RangError(TimeoutError):
    """Time was up."""


class Watch:
    """The alarms of one loop; made inside of it, as to ask for the loop is a system call."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._far: set[Alarm] = set()
        self._looks = False

    def alarm(self, within_s: float) -> Alarm:
        """`with watch.alarm(seconds) as alarm:`; infinite seconds never ring by themselves."""
        return Alarm(self, within_s)

    def add(self, alarm: Alarm) -> None:
        """One that is not due soon."""
        self._far.add(alarm)
        if not self._looks:
            self._looks = True
            self.loop.call_later(LOOK_PERIOD_S, self._look)

    def forget(self, alarm: Alarm) -> None:
        """It is over."""
        self._far.discard(alarm)

    def _look(self) -> None:
        soon_s = self.loop.time() + SOON_S
        for alarm in [alarm for alarm in self._far if alarm.due_s < soon_s]:
            self._far.discard(alarm)
            alarm.look()
        self._looks = bool(self._far)
        if self._looks:
            self.loop.call_later(LOOK_PERIOD_S, self._look)


class Alarm:
    """One of them."""

    __slots__ = ("_cancels", "_looks_s", "_rang", "_task", "_time", "_timer", "_watch", "due_s")

    def __init__(self, watch: Watch, within_s: float) -> None:
        self._watch = watch
        self._time = watch.loop.time
        self.due_s = self._time() + within_s
        self._looks_s = math.inf
        """Until then nobody looks."""
        self._rang = False
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> None:
        """It is to ring so long from now; too late once it has rung."""
        self.due_s = self._time() + seconds
        if self.due_s < self._looks_s:
            self.look()

    def now(self) -> None:
        """Ring."""
        self.within(0.0)

    def look(self) -> None:
        """Ring if it is time, else look again when it may be."""
        if self._timer is not None:
            self._timer.cancel()
        if self._rang or self.due_s == math.inf:
            return
        loop, self._looks_s = self._watch.loop, self.due_s
        left_s = self.due_s - loop.time()
        if left_s > SOON_S:
            self._watch.add(self)
        else:
            self._timer = loop.call_at(self.due_s, self._ring)

    def _ring(self) -> None:
        if self.due_s > self._looks_s:  # it was moved meanwhile
            self.look()
        else:
            self._rang = True
            self._task.cancel()

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._watch.loop)
        if task is None:
            raise RuntimeError("only a task can be cancelled")
        self._task, self._cancels = task, task.cancelling()
        self.look()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._watch.forget(self)
        own = self._rang and self._task.uncancel() <= self._cancels
        del self._task  # it knows its end, that the frames that it met, and one of these us
        if own and kind is asyncio.CancelledError:
            raise RangError from error

"""Virtual time: what happens next, happens now.

Rules: events at one instant run in the order in which they were planned; nothing is cancelled,
whoever planned an event looks whether it still matters; nothing here knows a clock or dice.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Call = Callable[..., None]


class Loop:
    """A heap of calls and the time of the last one."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Call, tuple[Any, ...]]] = []
        self._serial = 0

    def at(self, when_s: float, call: Call, *args: Any) -> None:
        """Plan a call; a time that is over means now, after what is planned for now."""
        self._serial += 1
        heapq.heappush(self._heap, (max(when_s, self.now_s), self._serial, call, args))

    def after(self, delay_s: float, call: Call, *args: Any) -> None:
        """Plan a call after a delay."""
        self._serial += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self._serial, call, args))

    def run(self, until_s: float) -> None:
        """Let everything happen that is planned for no later than `until_s`."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            self.now_s, _, call, args = heapq.heappop(heap)
            self.events += 1
            call(*args)
        self.now_s = until_s

"""Where ordinary reports wait for their turn, so that what decides something overtakes them.

Rules: of one stream everything is taken in the order it came: what is urgent takes along what waits
before it; a turn of the event loop has SLICE_S for reports; who has BACKLOG of them waiting is no
longer put off, so that nothing piles up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from controlplane.streams import Stream
from trimtab.runtime import clock

SLICE_S = 0.005
BACKLOG = 4


class Desk:
    """All reports that came and are not taken yet."""

    def __init__(self) -> None:
        self._waiting: deque[Stream] = deque()  # a stream as often as it has reports
        self._due = asyncio.Event()

    def later(self, stream: Stream, take: Callable[[], None]) -> None:
        """Take a report when there is time."""
        if len(stream.backlog) >= BACKLOG:
            self.now(stream)
        stream.backlog.append(take)
        self._waiting.append(stream)
        self._due.set()

    def now(self, stream: Stream) -> None:
        """Take all that waits of this stream."""
        while stream.backlog:
            stream.backlog.popleft()()

    async def run(self) -> None:
        """Take reports, a slice in each turn of the event loop, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            while self._waiting:
                end_s = clock.now_s() + SLICE_S
                while self._waiting and clock.now_s() < end_s:
                    backlog = self._waiting.popleft().backlog
                    if backlog:  # else it was taken along by something urgent
                        backlog.popleft()()
                await asyncio.sleep(0)

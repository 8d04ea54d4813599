"""Whether a caller takes what it is sent.

Rules: asyncio says when more than the transport's high-water mark waits; who has much to say then
waits for `drain`. Any number may wait, and one that is cancelled does not disturb the others.
"""

from __future__ import annotations

import asyncio


class Flow:
    """Of one connection."""

    __slots__ = ("_room", "is_full")

    def __init__(self) -> None:
        self.is_full = False
        """Whether to wait before more is sent."""
        self._room: asyncio.Event | None = None  # only for those who wait: most never do

    def pause(self) -> None:
        """It does not take it."""
        self.is_full = True

    def resume(self) -> None:
        """It does again."""
        self.is_full = False
        if self._room is not None:
            self._room.set()
            self._room = None

    async def drain(self) -> None:
        """Wait until it does."""
        while self.is_full:
            self._room = self._room or asyncio.Event()
            await self._room.wait()

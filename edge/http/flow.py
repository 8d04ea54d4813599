"""Whether a caller takes what it is sent.

Rules: asyncio says when more than the transport's high-water mark waits; who has much to say then
waits for `drain`. Any number may wait, and one that is cancelled does not disturb the others.
"""

from __future__ import annotations

import asyncio


class Flow:
    """Of one connection."""

    __slots__ = ("_room",)

    def __init__(self) -> None:
        self._room: asyncio.Event | None = None

    @property
    def is_full(self) -> bool:
        """Whether to wait before more is sent."""
        return self._room is not None

    def pause(self) -> None:
        """It does not take it."""
        self._room = asyncio.Event()

    def resume(self) -> None:
        """It does again."""
        if self._room is not None:
            self._room.set()
            self._room = None

    async def drain(self) -> None:
        """Wait until it does."""
        while self._room is not None:
            await self._room.wait()

"""What follows the head of a request, as it comes.

Rules: at most READ_BUFFER_BYTES and a packet wait for the reader: beyond that the caller is not
read; what nobody wants any more is dropped as it comes.
"""

from __future__ import annotations

import asyncio

from edge.alarm import Watch

READ_BUFFER_BYTES = 256 * 1024


class BrokenBodyError(Exception):
    """It is not framed as its headers say."""


class Body:
    """One of them: `take` and `more` for who reads, the rest for the connection."""

    __slots__ = (
        *("_parts", "_paused", "_size_bytes", "_transport", "_wake", "_watch"),
        *("is_broken", "is_whole"),
    )

    def __init__(self, transport: asyncio.Transport, watch: Watch) -> None:
        self._transport = transport
        self._watch = watch
        self._parts: list[bytes] | None = []
        self._size_bytes = 0
        self._paused = False
        self._wake: asyncio.Future[None] | None = None
        self.is_whole = False
        """Whether all of it has come; some may still have to be read."""
        self.is_broken = False

    def take(self) -> bytes:
        """What has come since; maybe nothing."""
        if not self._parts:
            return b""
        parts, self._parts, self._size_bytes = self._parts, [], 0
        self._resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def more(self, within_s: float) -> bytes:
        """What has come since, at least something; empty at the end.

        Raises BrokenBodyError, or TimeoutError when nothing comes in time.
        """
        if not (self._parts or self.is_whole or self.is_broken):
            with self._watch.alarm(within_s):
                self._wake = self._watch.loop.create_future()
                try:
                    await self._wake
                finally:
                    self._wake = None
        if self.is_broken and not self._parts:
            raise BrokenBodyError
        return self.take()

    def feed(self, part: bytes) -> None:
        """So much more came."""
        if self._parts is None:
            return
        self._parts.append(part)
        self._size_bytes += len(part)
        if self._size_bytes > READ_BUFFER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._rouse()

    def end(self) -> None:
        """That was all."""
        self.is_whole = True
        self._rouse()

    def break_off(self) -> None:
        """The rest can't be read."""
        self.is_broken = True
        self._rouse()

    def drop(self) -> None:
        """Nobody wants the rest."""
        self._parts = None
        self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

"""The straight way of a stream's chunks: one that is a plain event passes as it is framed.

Rules: it does what `attempt` does with such a chunk, and nothing else; what it does not know at a
glance it leaves alone. One of these is met for each token of each stream, with all its memory out
of the processor's caches meanwhile: so what counts is how few objects are touched.
"""

from __future__ import annotations

from edge.admission import Permit
from edge.alarm import Alarm
from edge.client import ClientStream
from edge.core.shape import Shape


class Straight:
    """Of one attempt."""

    __slots__ = (*("_alarm", "_idle_s", "_permit", "_shape", "_transcript", "_writer", "is_open"),)

    def __init__(
        self, shape: Shape, stream: ClientStream, permit: Permit, alarm: Alarm, idle_s: float
    ) -> None:
        self._shape = shape
        self._writer = stream.plain_writer
        self._transcript = stream.transcript
        self._permit = permit
        self._alarm = alarm
        self._idle_s = idle_s
        self.is_open = False
        """Whether data has come and passed, all of it."""

    def take(self, chunk: bytes) -> bool:
        """Pass on one chunk that begins where a chunk does; False: nothing was done."""
        if not self.is_open or self._writer is None:
            return False
        found = self._shape.chunk(chunk)
        if found is None:
            return False
        passing, text = found
        if not self._writer.put_chunk(passing):
            return False
        if self._transcript is not None:
            self._transcript.said(text, 1)
        self._permit.tokens += 1
        self._alarm.within(self._idle_s)
        return True

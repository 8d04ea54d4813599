"""The caller's side of one request.

Rules: the status goes out as late as possible, so that a refusal can still be an HTTP status: with
the first data, or, when that takes longer than the head-hold time, with a comment that keeps
proxies and people awake. What is sent is noted in the same breath, so that another replica can go
on with exactly that. A stream that failed says so in an error event and is then cut without a
proper end, because both official SDKs take a clean end for success.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from edge.answers import complete
from edge.core import continuation, envelopes, sse
from edge.core.continuation import Rest, Transcript
from edge.core.openai import Call
from edge.core.problems import Problem
from edge.core.shape import Plain
from edge.core.surface import Dialect
from edge.http.request import Request
from edge.http.response import Response
from edge.http.writer import Writer
from trimtab.runtime import clock

KEEP_ALIVE_PERIOD_S = 15.0
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class ClientStream:
    """A streamed answer to one caller."""

    def __init__(self, request: Request, dialect: Dialect, request_id: str) -> None:
        self._writer = request.writer
        self._journey = request.journey
        self._recording = request.recording
        self._dialect = dialect
        self._request_id = request_id
        self._response = Response(headers=dict(STREAM_HEADERS))
        self._quiet = True
        self.transcript: Transcript | None = None
        """Kept if the stream may go on on another replica."""
        self.rest: Rest | None = None
        """What it goes on with; None before it was ever cut."""
        self.started_s: float | None = None

    @property
    def started(self) -> bool:
        """Whether the caller has seen data."""
        return self.started_s is not None

    @property
    def committed(self) -> bool:
        """Whether the status is out."""
        return self._response.is_out

    @property
    def is_full(self) -> bool:
        """Whether the caller does not take what it has: then wait for `drain` before the next."""
        return self._writer.is_full

    @property
    def plain_writer(self) -> Writer | None:
        """Who writes chunks as they are framed, where nothing is to be done with them."""
        return None if self._writer.is_old or self._recording is not None else self._writer

    def flow(self, plain: Plain) -> None:
        """Pass on more of a stream that has begun."""
        self._quiet = False
        if self.transcript is not None:
            self.transcript.said(plain.said, plain.number)
        if self._recording is not None:
            self._recording.sent(plain.passing)
        self._writer.write(plain.passing)

    def write(self, data: bytes) -> None:
        """Pass data on; the first brings the status."""
        if self.started_s is None:
            self.started_s = clock.now_s()
        self._quiet = False
        if self.transcript is not None:
            self.transcript.sent(data)
        self._put(data)

    async def drain(self) -> None:
        """Wait until the caller has read enough."""
        await self._writer.drain()

    async def send(self, data: bytes | Plain) -> None:
        """Pass data on, no faster than the caller reads."""
        if isinstance(data, Plain):
            self.flow(data)
        else:
            self.write(data)
        if self.is_full:
            await self.drain()

    def mark(self, headers: Mapping[str, str]) -> None:
        """Say something about the answer: in headers, or in comments when these are out."""
        if not self.committed:
            self._response.headers.update(headers)
            return
        for name, value in headers.items():
            self._put(f": {name}: {value}\n\n".encode())

    def is_whole(self, call: Call) -> bool:
        """Whether the caller has everything but the mark of the end."""
        return self.transcript is not None and continuation.is_whole(call, self.transcript)

    def pause(self) -> None:
        """No data flows until more is sent: comments may."""
        self._quiet = True

    def keep_alive(self) -> None:
        """Send a comment, unless data flows or the caller does not even read that."""
        if not self._quiet or self._writer.stands:
            return
        if self.committed:
            self._writer.write(sse.KEEP_ALIVE)
        else:
            self._begin(sse.KEEP_ALIVE)

    def finish(self) -> Response:
        """The answer is whole."""
        if not self.committed:
            self._begin(b"")
        if self._recording is not None:
            self._recording.ended(self._response.headers)
        self._writer.end()
        return self._response

    def fail(self, problem: Problem) -> Response:
        """The answer will never be whole; only after something was sent."""
        self._writer.write(envelopes.event(problem, self._dialect, self._request_id))
        self._writer.cut()
        return self._response

    def _put(self, data: bytes) -> None:
        if self._recording is not None:
            self._recording.sent(data)
        if self._response.is_out:
            self._writer.write(data)
        else:
            self._begin(data)

    def _begin(self, data: bytes) -> None:
        complete(self._journey, self._response)
        self._writer.begin(self._response, data)


class Keeper:
    """Sends comments on all streams that wait for data; one loop for all."""

    def __init__(self) -> None:
        self._due: dict[ClientStream, float] = {}

    def watch(self, stream: ClientStream, due_s: float) -> None:
        """From `due_s` on (clock.now_s), keep this stream awake."""
        self._due[stream] = due_s

    def release(self, stream: ClientStream) -> None:
        """Its data flows, or it is over."""
        self._due.pop(stream, None)

    async def run(self) -> None:
        """Once a second, all that are due."""
        while True:
            await asyncio.sleep(1.0)
            now_s = clock.now_s()
            for stream, due_s in list(self._due.items()):
                if now_s >= due_s and stream in self._due:
                    self._due[stream] = now_s + KEEP_ALIVE_PERIOD_S
                    stream.keep_alive()

"""The caller's side of one request.

Rules: the status goes out as late as possible, so that a refusal can still be an HTTP status: with
the first data, or, when that takes longer than the head-hold time, with a comment that keeps
proxies and people awake. What is sent is noted in the same breath, so that another replica can go
on with exactly that. A stream that failed says so in an error event and is then cut without a
proper end, because both official SDKs take a clean end for success.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from aiohttp import web

from edge.answers import complete
from edge.core import continuation, envelopes, sse
from edge.core.continuation import Rest, Transcript
from edge.core.openai import Call
from edge.core.problems import Problem
from edge.core.replay import Recording
from edge.core.shape import Plain
from edge.core.surface import Dialect
from trimtab.runtime import clock

RECORDING = web.RequestKey("recording", Recording)
"""On a request whose answer is to be kept."""
KEEP_ALIVE_PERIOD_S = 15.0
FAIL_WITHIN_S = 5.0
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class ClientStream:
    """A streamed answer to one caller."""

    def __init__(self, request: web.BaseRequest, dialect: Dialect, request_id: str) -> None:
        self._request = request
        self._dialect = dialect
        self._request_id = request_id
        self._response = web.StreamResponse(headers=STREAM_HEADERS)
        self._lock = asyncio.Lock()
        self._quiet = True
        self._recording = request.get(RECORDING)
        self._prepared = self._flows = False
        self.committed = False
        self.transcript: Transcript | None = None
        """Kept if the stream may go on on another replica."""
        self.rest: Rest | None = None
        """What it goes on with; None before it was ever cut."""
        self.started_s: float | None = None

    @property
    def started(self) -> bool:
        """Whether the caller has seen data."""
        return self.started_s is not None

    async def send(self, data: bytes | Plain) -> None:
        """Pass data on; the first call sends the status."""
        if self.started_s is None:
            self.started_s = clock.now_s()
        self._quiet = False
        if not self._prepared:
            await self._commit()
        await self._response.write(self._noted(data))
        self._flows = self._response.headers.get("transfer-encoding") == "chunked"

    def _noted(self, data: bytes | Plain) -> bytes:
        plain = data if isinstance(data, Plain) else None
        raw = data.passing if isinstance(data, Plain) else data
        if self.transcript is not None and plain is not None:
            self.transcript.said(plain.said, plain.number)
        elif self.transcript is not None:
            self.transcript.sent(raw)
        if self._recording is not None:
            self._recording.sent(raw)
        return raw

    def flow(self, plain: Plain) -> bool:
        """Pass more data on without a wait; False: `send` it."""
        transport = self._request.transport
        if not self._flows or transport is None or transport.is_closing() or self._stands():
            return False
        self._quiet = False
        data = self._noted(plain)
        # what aiohttp would do, in a fifth of its time: the head is out, nothing waits
        transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    async def mark(self, headers: Mapping[str, str]) -> None:
        """Say something about the answer: in headers, or in comments when these are out."""
        if not self.committed:
            self._response.headers.update(headers)
            return
        for name, value in headers.items():
            comment = f": {name}: {value}\n\n".encode()
            if self._recording is not None:
                self._recording.sent(comment)
            await self._response.write(comment)

    def is_whole(self, call: Call) -> bool:
        """Whether the caller has everything but the mark of the end."""
        return self.transcript is not None and continuation.is_whole(call, self.transcript)

    def pause(self) -> None:
        """No data flows until more is sent: comments may."""
        self._quiet = True

    async def keep_alive(self) -> None:
        """Send a comment, unless data flows or the caller does not even read that."""
        with contextlib.suppress(ConnectionError):
            await self._commit()
            if self._quiet and not (self.started and self._stands()):
                await self._response.write(sse.KEEP_ALIVE)

    def _stands(self) -> bool:
        """Whether the caller leaves unread what it has: to wait for it would stop the keeper."""
        transport = self._request.transport
        return transport is None or transport.get_write_buffer_size() > 0

    async def finish(self) -> web.StreamResponse:
        """The answer is whole."""
        if self._recording is not None:
            self._recording.ended(self._response.headers)
        await self._response.write_eof()
        return self._response

    async def fail(self, problem: Problem) -> web.StreamResponse:
        """The answer will never be whole; only after something was sent."""
        event = envelopes.event(problem, self._dialect, self._request_id)
        with contextlib.suppress(TimeoutError):  # who does not read will not hear it
            async with asyncio.timeout(FAIL_WITHIN_S):
                await self._response.write(event)
        if self._request.transport is not None:
            self._request.transport.close()  # flushes, then ends without the last chunk
        return self._response

    async def _commit(self) -> None:
        async with self._lock:
            if not self.committed:
                self.committed = True
                complete(self._request, self._response)
                await self._response.prepare(self._request)
                self._prepared = True


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
                    await stream.keep_alive()

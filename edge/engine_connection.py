"""One connection to an engine: a request at a time, its answer as it comes.

Rules: what comes is parsed by llhttp, strictly, and taken in at most READ_BUFFER_BYTES ahead of its
reader, who may take it in the moment it comes, and a chunk even as it is framed, which llhttp then
never sees; what is no body has an end (OVERHEAD_LIMIT_BYTES); interim answers (1xx) are skipped. A
connection goes on only after an answer that ended by itself, with nothing behind it and all of the
request taken: whatever else happens, and any byte that nobody asked for, ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

import httptools

from edge.core.splice import Pieces
from trimtab.policy.classify import Failure, Fault

READ_BUFFER_BYTES = 256 * 1024
OVERHEAD_LIMIT_BYTES = 64 * 1024  # heads, trailers, chunk extensions, between two parts of a body
PIECE_BYTES = 256 * 1024  # of a large body: what the transport has not sent yet it may hold again


class UpstreamError(Exception):
    """An attempt that failed; carries how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.fault.name)
        self.failure = failure


Take = Callable[[bytes], bool]


class Connection(asyncio.Protocol):
    """A protocol for asyncio on one side; `send`, `head`, `read`, `finish` on the other."""

    __slots__ = (  # a stream's is out of the caches when its next token comes
        *("_between_chunks", "_busy", "_fault", "_has_head", "_headers", "_interim", "_loop"),
        *("_may_go_on", "_overhead_bytes", "_parser", "_parts", "_parts_bytes", "_paused"),
        *("_take", "_take_chunk", "_transport", "_until_close", "_wake", "_write_paused"),
        *("ended", "heard", "idle_since_s", "status"),
    )

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._wake: asyncio.Future[None] | None = None
        self._take: Take | None = None
        self._take_chunk: Take | None = None
        self._paused = self._write_paused = False
        self._may_go_on = True
        """False once it can't have another request."""
        self.idle_since_s = 0.0
        self._begin(busy=False)

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._may_go_on and not self._busy

    def _begin(self, *, busy: bool) -> None:
        self._busy = busy
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._parts_bytes = self._overhead_bytes = 0
        self._interim = self._until_close = self._has_head = False
        self._between_chunks = False
        """Whether the parser, and all that came, is at the end of a chunk."""
        self._fault: Fault | None = None
        self.status = 0
        self.heard = False
        """Whether any byte of the answer came."""
        self.ended = False
        """Whether the answer is whole; some of it may still have to be read."""

    # For who asks

    def send(self, head: bytes, body: bytes) -> None:
        """A request, on a usable connection."""
        self._begin(busy=True)
        self._transport.write(head + body)

    async def upload(self, head: bytes, body: Pieces) -> None:
        """A large one, no faster than the engine takes it; an early answer leaves the rest."""
        self.send(head, b"")
        for part in _cut(body):
            while self._write_paused and self._fault is None and not self._has_head:
                await self._news()
            if self._has_head or self._fault is not None:
                self._may_go_on = False
                return
            self._transport.write(part)

    async def head(self) -> None:
        """Wait for status and headers; raises UpstreamError."""
        while not self._has_head:
            if self._fault is not None:
                raise UpstreamError(Failure(self._fault))
            await self._news()

    def header(self, name: bytes) -> str:
        """That of a name in small letters, of several a list; empty if there is none."""
        return self._headers.get(name, b"").decode("latin-1")

    async def read(self, take: Take | None = None, take_chunk: Take | None = None) -> bytes:
        """What has come of the body, at least something; empty at its end.

        What comes while there is nothing is given to `take` first; what it takes is gone. Before
        that, what begins where a chunk does is given to `take_chunk` as it came, which must take
        exactly one chunk, and not the last, or nothing. Raises UpstreamError when the body is cut,
        after what came before.
        """
        while not self._parts:
            if self.ended:
                return b""
            if self._fault is not None:
                raise UpstreamError(Failure(self._fault))
            self._take, self._take_chunk = take, take_chunk
            try:
                await self._news()
            finally:
                self._take = self._take_chunk = None
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return self._pop()

    @property
    def is_read(self) -> bool:
        """Whether the answer is whole, and nothing of it left to read."""
        return self.ended and not self._parts

    def _pop(self) -> bytes:
        parts = self._parts
        self._parts, self._parts_bytes = [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> bool:
        """The asker has what it wanted; whether the connection is usable. Else it is closed."""
        if self.is_read and self._may_go_on and not self._transport.get_write_buffer_size():
            self._busy = False
            return True
        self.abort()
        return False

    def abort(self) -> None:
        """End it now; an engine that computes an answer notices."""
        self._may_go_on = False
        self._transport.abort()

    def _news(self) -> asyncio.Future[None]:
        """What ends when anything happens."""
        self._wake = self._loop.create_future()
        return self._wake

    # For asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._fail(Fault.CUT)
        del self._parser  # it knows us: nobody should have to look for the circle

    def eof_received(self) -> None:
        """The engine sends no more: so an answer ends that has no other end."""
        if self._until_close and self._fault is None:
            self.ended = True
        self._fail(Fault.CUT)

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        if self._between_chunks and self._take_chunk is not None and self._take_chunk(data):
            return
        if not self._busy or self.ended:
            self.abort()  # nobody asked for them
            return
        self.heard = True
        before_bytes = self._parts_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._malformed()
        has_body = self._parts_bytes > before_bytes
        # a line that ends behind a chunk is its own: one that says a size begins the next
        self._between_chunks = self._between_chunks and has_body and data.endswith(b"\r\n")
        if not has_body:
            self._overhead_bytes += len(data)
            if self._overhead_bytes > OVERHEAD_LIMIT_BYTES:
                self._malformed()
        elif self._take is not None and self._take(b"".join(self._parts)):
            self._parts, self._parts_bytes, self._overhead_bytes = [], 0, 0
            if self._goes_on:
                return
        else:
            self._overhead_bytes = 0
            self._between_chunks = False  # what waits goes before what comes
            if self._parts_bytes > READ_BUFFER_BYTES and not (self._paused or self.ended):
                self._paused = True
                self._transport.pause_reading()
        self._rouse()

    @property
    def _goes_on(self) -> bool:
        """Whether more of the answer is to come."""
        return not self.ended and self._fault is None

    def pause_writing(self) -> None:
        """The engine reads slower than we send."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._write_paused = False
        self._rouse()

    def _fail(self, fault: Fault) -> None:
        self._may_go_on = self._between_chunks = False
        if not self.ended and self._fault is None:
            self._fault = fault
        self._rouse()

    def _malformed(self) -> None:
        self._fail(Fault.MALFORMED)  # unless the answer was whole before
        self._transport.abort()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # For the parser

    def on_message_begin(self) -> None:
        """An answer begins, or what comes behind it without being asked for."""
        if self.ended:
            self._may_go_on = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or trailer."""
        if not self._has_head:
            name = name.lower()
            before = self._headers.get(name)
            self._headers[name] = value if before is None else b"%b, %b" % (before, value)

    def on_headers_complete(self) -> None:
        """The head has come, or an interim one."""
        if self.ended:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim = True
            return
        self.status, self._has_head = status, True
        coding = self._headers.get(b"transfer-encoding", b"").lower()
        bounded = b"chunked" in coding or status in {204, 304}
        self._until_close = not bounded and (bool(coding) or b"content-length" not in self._headers)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self.ended:
            self._parts.append(body)
            self._parts_bytes += len(body)

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """It has ended."""
        self._between_chunks = True

    def on_message_complete(self) -> None:
        """The answer is whole, or the interim one."""
        self._between_chunks = False
        if self._interim:
            self._interim = False
            self._headers.clear()
        elif not self.ended:
            self.ended = True
            self._may_go_on = self._may_go_on and self._parser.should_keep_alive()


def _cut(body: Pieces) -> Iterator[memoryview]:
    for piece in body:
        whole = memoryview(piece)
        for at in range(0, len(whole), PIECE_BYTES):
            yield whole[at : at + PIECE_BYTES]

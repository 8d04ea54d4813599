"""Where the answer to one request goes.

Rules: nothing is waited for here: who sends much looks at `is_full` and waits for `drain`. A
connection goes on only after an answer that said so, to a request all of which has come. What is
sent to a caller that left goes nowhere: whoever serves it is cancelled anyway.
"""

from __future__ import annotations

import asyncio

from edge.http.body import Body
from edge.http.flow import Flow
from edge.http.response import Response, head

JOINED_MAX_BYTES = 64 * 1024  # a copy of so much costs less than a second buffer
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WITHOUT_BODY = frozenset({204, 304})


class Writer:
    """A whole answer by `send`, or a stream by `begin`, `write` and `end` or `cut`."""

    __slots__ = ("_body", "_flow", "_transport", "is_head", "is_old", "keeps")

    def __init__(self, transport: asyncio.Transport, flow: Flow, body: Body) -> None:
        self._transport = transport
        self._flow = flow
        self._body = body
        """Of the request."""
        self.is_head = False
        """Whether the caller wants no body."""
        self.is_old = False
        """Whether it speaks HTTP/1.0."""
        self.keeps = False
        """Whether the connection goes on."""

    def send(self, response: Response) -> None:
        """A whole answer."""
        body = response.body
        if response.status not in _WITHOUT_BODY:
            response.headers["content-length"] = str(len(body))
        self._send_head(response, b"" if self.is_head else body)

    def begin(self, response: Response, data: bytes) -> None:
        """The head of a stream, and the first of its data."""
        if not self.is_old:
            response.headers["transfer-encoding"] = "chunked"
            data = _chunk(data) if data else b""
        else:
            response.closes = True
        self._send_head(response, data)

    def write(self, data: bytes) -> None:
        """More of a stream."""
        if data and not self._transport.is_closing():  # an empty chunk would end it
            self._transport.write(data if self.is_old else b"%x\r\n%b\r\n" % (len(data), data))

    def put_chunk(self, chunk: bytes) -> bool:
        """One chunk of a stream as it is framed; False, and nothing, where that can't be now."""
        if self._flow.is_full or self._transport.is_closing():
            return False
        self._transport.write(chunk)
        return True

    def end(self) -> None:
        """The stream is whole."""
        if not self.is_old:
            self._put(b"0\r\n\r\n")

    def cut(self) -> None:
        """The stream ends here, and says by its missing end that it is not whole."""
        self.keeps = False

    def go_on(self) -> None:
        """Ask for the body, where the caller waits for that."""
        self._put(CONTINUE)

    @property
    def client(self) -> str:
        """The caller's address."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def is_full(self) -> bool:
        """Whether to wait for `drain` before more is written."""
        return self._flow.is_full

    @property
    def stands(self) -> bool:
        """Whether the caller leaves unread what it was sent."""
        return self._transport.get_write_buffer_size() > 0

    async def drain(self) -> None:
        """Wait until the caller has read enough."""
        await self._flow.drain()

    def _send_head(self, response: Response, data: bytes) -> None:
        self.keeps = self.keeps and self._body.is_whole and not response.closes
        if not self.keeps:
            response.headers["connection"] = "close"
        elif self.is_old:
            response.headers["connection"] = "keep-alive"
        start = head(response.status, response.headers)
        response.is_out = True
        if len(data) <= JOINED_MAX_BYTES:
            self._put(start + data)
        else:
            self._put(start)
            self._put(data)

    def _put(self, data: bytes) -> None:
        if not self._transport.is_closing():  # or who left while others were served is an error
            self._transport.write(data)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

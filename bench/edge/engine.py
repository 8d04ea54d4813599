"""An engine that costs next to nothing: raw sockets, answers made beforehand.

Rules: a request's `user` says how it is answered: `shape-EVENTS-BURST-GAP_US` for a stream of so
many events, so many in one write, a write every so often (0: as fast as it is read). All streams
of one gap are written to in the same moment, as the step of a real engine does.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SHAPE = re.compile(rb'"shape-(\d+)-(\d+)-(\d+)"')
_HEAD = b'"id":"chatcmpl-7f0c5a3e9b1d4c26","object":"chat.completion.chunk","created":1764500000,'


def _event(choice: bytes, usage: bytes = b"") -> bytes:
    return b'data: {%b"model":"bench","choices":[%b]%b}\n\n' % (_HEAD, choice, usage)


_FIRST = _event(b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null}')
_TEXT = _event(b'{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}')
_LAST = _event(b'{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop"}')
_END = _LAST + b"data: [DONE]\n\n"


def _answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_WHOLE = _answer(
    b'{"id":"chatcmpl-7f0c5a3e9b1d4c26","object":"chat.completion","created":1764500000,'
    b'"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"%b"},'
    b'"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":470,"total_tokens":602,'
    b'"completion_tokens":132}}' % (b"a word " * 100)
)
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_OTHER = {
    b"/health": _answer(b""),
    b"/v1/models": _answer(b'{"object":"list","data":[{"id":"bench","object":"model"}]}'),
}
_UNKNOWN = _answer(b"{}", b"404 Not Found")


class _Steps:
    """Writes to all streams of one gap at once."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._streams: set[_Connection] = set()
        self._next_s = 0.0

    def add(self, stream: _Connection) -> None:
        if not self._streams:
            self._next_s = asyncio.get_running_loop().time()
            self._plan()
        self._streams.add(stream)

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_s = max(self._next_s + self._gap_s, loop.time())
        loop.call_at(self._next_s, self._step)

    def _step(self) -> None:
        self._streams = {stream for stream in self._streams if stream.step()}
        if self._streams:
            self._plan()


_steps: dict[int, _Steps] = {}


class _Connection(asyncio.Protocol):
    """One connection; requests one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._got = bytearray()
        self._left = 0
        self._burst = 1
        self._full = self._flat = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._left = 0

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n") + 4) > 3:
            found = _LENGTH.search(self._got, 0, end)
            total = end + (int(found[1]) if found else 0)
            if len(self._got) < total:
                return
            self._serve(self._got[:end], self._got[end:total])
            del self._got[:total]

    def _serve(self, head: bytearray, body: bytearray) -> None:
        if head.startswith(b"GET"):
            path = bytes(head.split(b" ", 2)[1])
            self._transport.write(_OTHER.get(path, _UNKNOWN))
        elif shape := _SHAPE.search(body):
            self._left, self._burst, gap_us = (int(number) for number in shape.groups())
            self._flat = not gap_us
            self._transport.write(_STREAM + _chunk(_FIRST))
            if gap_us:
                _steps.setdefault(gap_us, _Steps(gap_us / 1e6)).add(self)
            else:
                self._flow()
        else:
            self._transport.write(_WHOLE)

    def step(self) -> bool:
        """Write what is due; False when that was all."""
        if self._left <= 0 or self._transport.is_closing():
            return False
        count = min(self._burst, self._left)
        self._left -= count
        data = _chunk(_TEXT * count)
        self._transport.write(data if self._left else data + _chunk(_END) + b"0\r\n\r\n")
        return self._left > 0

    def _flow(self) -> None:
        if self._flat and not self._full and self.step():
            asyncio.get_running_loop().call_soon(self._flow)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._flow()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(_Connection, "127.0.0.1", 0, backlog=2048) for _ in "ab"]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started it has gone


if __name__ == "__main__":
    uvloop.run(_serve())

"""Callers that cost next to nothing: raw sockets, each asks again as soon as it has its answer."""

from __future__ import annotations

import asyncio
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from bench.goodput.client import KEY, MODEL
from trimtab.runtime.clock import now_s

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MARK = b"data: {"
_LAST_CHUNK = b"0\r\n\r\n"


def request(port: int, prompt_bytes: int = 1_700, shape: str = "") -> bytes:
    """A chat request as an SDK sends it; `shape` makes it a stream (see engine)."""
    stream = '"stream":true,' if shape else ""
    body = f'{{"model":"{MODEL}",{stream}"max_tokens":2000,"user":"{shape or "someone"}",'
    body += f'"messages":[{{"role":"user","content":"{"word " * (prompt_bytes // 5)}"}}]}}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    head += f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    head += "Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
    head += "User-Agent: OpenAI/Python 2.8.0\r\nX-Stainless-Lang: python\r\n"
    head += "X-Stainless-Read-Timeout: 600\r\nX-Stainless-Retry-Count: 0\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@dataclass(slots=True)
class Tally:
    """What the callers saw since it was last cleared."""

    answers: int = 0
    events: int = 0
    errors: int = 0
    opened: int = 0
    """Streams whose first event came."""
    took_s: array[float] = field(default_factory=lambda: array("d"))
    """From a request to the end of its answer."""

    def clear(self) -> None:
        """Begin to measure."""
        self.answers = self.events = self.errors = self.opened = 0
        del self.took_s[:]


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, question: bytes, tally: Tally) -> None:
        self._question = question
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._head = self._tail = b""
        self._left: int | None = None
        """Of the body; None before it, less than 0 if it has to say its end."""
        self._opened = False
        self._asked_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """It should stay."""
        if self._transport is not None:
            self._tally.errors += 1

    def data_received(self, data: bytes) -> None:
        """Read just enough to see the end."""
        if self._left is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            self._tally.errors += not self._head.startswith(b"HTTP/1.1 200")
            found = _LENGTH.search(self._head, 0, end)
            self._left = int(found[1]) if found else -1
            data = self._head[end:]
        if self._left >= 0:
            self._left -= len(data)
            if self._left <= 0:
                self._ended()
            return
        seen = self._tail + data
        events = seen.count(_MARK)
        self._tally.events += events
        if events and not self._opened:
            self._opened = True
            self._tally.opened += 1
        self._tail = seen[-6:]
        if seen.endswith(_LAST_CHUNK):
            self._ended()

    def close(self) -> None:
        """Leave."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _ended(self) -> None:
        self._tally.answers += 1
        self._tally.took_s.append(now_s() - self._asked_s)
        self._ask()

    def _ask(self) -> None:
        self._head = self._tail = b""
        self._left, self._opened, self._asked_s = None, False, now_s()
        if self._transport is not None:
            self._transport.write(self._question)


async def open_callers(port: int, count: int, question: bytes, tally: Tally) -> list[Caller]:
    """So many connections that ask."""
    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(count):
        _transport, caller = await loop.create_connection(
            lambda: Caller(question, tally), "127.0.0.1", port
        )
        callers.append(caller)
    return callers


def quantile_ms(values: Sequence[float], share: float) -> float:
    """In milliseconds; 0 of none."""
    ordered = sorted(values)
    return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

"""The HTTP leg to the engines.

Rules: connections are pooled shorter than the engine keeps them (5 s), never limited (admission
limits), never redirected, never decompressed; every way in which it can go wrong is an
UpstreamError with the Fault that policy/classify knows. The client is our own (engine_connection),
since a general one takes more CPU than all the rest of a proxy (docs/decisions/0001).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from edge.alarm import Watch
from edge.core.splice import Pieces
from edge.engine_connection import PIECE_BYTES, Connection, Take, UpstreamError
from trimtab.model import Route
from trimtab.policy.classify import Failure, Fault
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner

__all__ = ["Answer", "Upstream", "UpstreamError", "connect"]

CONNECT_TIMEOUT_S = 2.0  # for each address of a name
SOCKET_OPTIONS = (  # a host that vanished under a silent, long prefill is noticed after 25 s
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
KEEP_ALIVE_S = 4.0  # below vLLM's VLLM_HTTP_TIMEOUT_KEEP_ALIVE of 5 s
SWEEP_PERIOD_S = 1.0
STALE_WITHIN_S = 0.5  # a closed kept-alive connection shows at once; what ends later was taken
ANSWER_LIMIT_BYTES = 256 * 1024 * 1024
_TARGET = re.compile(r"/[!-~]*")


class Origin(NamedTuple):
    """Where an engine listens."""

    host: str
    port: int
    is_tls: bool


class Answer:
    """An engine's answer whose head has come."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.content_type = connection.header(b"content-type") or "application/json"

    @property
    def is_read(self) -> bool:
        """Whether it is whole, and nothing of it left to read."""
        return self._connection.is_read

    async def some(self, take: Take | None = None, take_chunk: Take | None = None) -> bytes:
        """What has come of the body, empty at its end; raises UpstreamError when it is cut.

        What comes while there is nothing may be taken in that moment, as `Connection.read` says.
        """
        return await self._connection.read(take, take_chunk)

    async def read(self) -> bytes:
        """The whole body; raises UpstreamError when it is cut or has no end."""
        body = await self.some()
        if self.is_read:  # most of the time
            return body
        parts, size_bytes = [body], len(body)
        while body := await self.some():
            parts.append(body)
            size_bytes += len(body)
            if size_bytes > ANSWER_LIMIT_BYTES:
                raise UpstreamError(Failure(Fault.MALFORMED))
        return b"".join(parts)


class Upstream:
    """Sends requests to replicas."""

    def __init__(self, key: str) -> None:
        fixed = {"content-type": "application/json"}
        self._fixed = _lines(fixed | ({"authorization": f"Bearer {key}"} if key else {}))
        self.watch = Watch()
        self._idle: dict[Origin, list[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    def post(
        self,
        route: Route,
        path: str,
        body: Pieces,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
    ) -> AbstractAsyncContextManager[Answer]:
        """Send and wait for the head; leaving the block early aborts the request in the engine."""
        origin, opening = _opening(method, route.url, path, self._fixed)
        size_bytes = sum(map(len, body))
        head = f"{opening}content-length: {size_bytes}\r\n{_lines(headers)}\r\n"
        sent = head.encode("utf-8", "surrogateescape")
        return Exchange(self, origin, sent, body, is_large=size_bytes > PIECE_BYTES)

    def take(self, origin: Origin) -> Connection | None:
        """A connection that was used before, if there is one."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable and clock.now_s() - connection.idle_since_s < KEEP_ALIVE_S:
                return connection
            connection.abort()
        return None

    def give(self, origin: Origin, connection: Connection) -> None:
        """Keep it for the next request."""
        connection.idle_since_s = clock.now_s()
        self._idle.setdefault(origin, []).append(connection)

    def sweep(self, longest_s: float = KEEP_ALIVE_S) -> None:
        """Close what was idle for so long."""
        now_s = clock.now_s()
        for origin, idle in list(self._idle.items()):
            fresh = [c for c in idle if c.usable and now_s - c.idle_since_s < longest_s]
            for connection in set(idle) - set(fresh):
                connection.abort()
            if fresh:
                self._idle[origin] = fresh
            else:
                del self._idle[origin]

    async def sweep_forever(self) -> None:
        """Close what is idle."""
        while True:
            await asyncio.sleep(SWEEP_PERIOD_S)
            self.sweep()

    async def connect(self, origin: Origin) -> Connection:
        """A new one; raises UpstreamError."""
        loop, refused = self.watch.loop, False
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                kind = socket.SOCK_STREAM
                found = await loop.getaddrinfo(origin.host, origin.port, type=kind)
        except (OSError, UnicodeError):
            found = []
        for address in found:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    return await self._open(origin, address)
            except OSError as error:  # of TLS and of time, too
                refused = isinstance(error, ConnectionRefusedError)
        raise UpstreamError(Failure(Fault.REFUSED if refused else Fault.UNREACHABLE))

    async def _open(self, origin: Origin, address: Any) -> Connection:
        if origin.is_tls and self._tls is None:
            self._tls = ssl.create_default_context()
        loop, made = self.watch.loop, _socket(address)
        try:
            await loop.sock_connect(made, address[4])
            _, connection = await loop.create_connection(
                Connection,
                sock=made,
                ssl=self._tls if origin.is_tls else None,
                server_hostname=origin.host if origin.is_tls else None,
            )
        except BaseException:
            made.close()
            raise
        return connection


class Exchange:
    """One request and its answer: `async with upstream.post(…) as answer`."""

    def __init__(
        self, upstream: Upstream, origin: Origin, head: bytes, body: Pieces, *, is_large: bool
    ) -> None:
        self._is_large = is_large
        self._upstream = upstream
        self._origin = origin
        self._request = head, body
        self._connection: Connection

    async def __aenter__(self) -> Answer:
        used = self._upstream.take(self._origin)
        self._connection = used or await self._upstream.connect(self._origin)
        sent_s = clock.now_s()
        try:
            head, body = self._request
            if self._is_large:
                await self._connection.upload(head, body)
            else:
                self._connection.send(head, b"".join(body))
            await self._connection.head()
        except UpstreamError as error:
            untouched = used is not None and not self._connection.heard
            self._connection.abort()
            if untouched and clock.now_s() - sent_s < STALE_WITHIN_S:
                raise UpstreamError(Failure(Fault.STALE)) from error
            raise
        except BaseException:
            self._connection.abort()
            raise
        return Answer(self._connection)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection.finish():
            self._upstream.give(self._origin, self._connection)


@asynccontextmanager
async def connect(key: str) -> AsyncIterator[Upstream]:
    """The pool of connections, for as long as the edge runs."""
    upstream = Upstream(key)
    async with TaskRunner() as runner:
        runner.forever("idle connections", upstream.sweep_forever())
        try:
            yield upstream
        finally:
            upstream.sweep(0.0)


def _lines(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a line end in a header")
    return lines


@lru_cache(maxsize=4096)
def _opening(method: str, url: str, path: str, fixed: str) -> tuple[Origin, str]:
    """Where to connect to, and how such a request begins."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    origin = Origin(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls)
    target = parts.path + path
    if not _TARGET.fullmatch(target):
        raise ValueError(f"not a path: {target!r}")
    host = parts.netloc.rpartition("@")[2]
    return origin, f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fixed}"


def _socket(address: Any) -> socket.socket:
    made = socket.socket(*address[:3])
    made.setblocking(False)
    for option in SOCKET_OPTIONS:
        made.setsockopt(*option)
    return made

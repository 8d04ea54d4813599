"""The HTTP leg to the engines.

Rules: connections are pooled shorter than the engine keeps them (5 s), never limited (admission
limits), never redirected, never decompressed; every way in which it can go wrong is an
UpstreamError with the Fault that policy/classify knows. aiohttp's settings are those measured in
docs/decisions/0001: together they save a third of the CPU.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
from yarl import URL

from trimtab.model import Route
from trimtab.policy.classify import Failure, Fault
from trimtab.runtime import clock

CONNECT_TIMEOUT_S = 2.0
TCP_KEEP_ALIVE = (  # a host that vanished under a silent, long prefill is noticed after 25 s
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
KEEP_ALIVE_S = 4.0  # below vLLM's VLLM_HTTP_TIMEOUT_KEEP_ALIVE of 5 s
STALE_WITHIN_S = 0.5  # a closed kept-alive connection shows at once; what ends later was taken
READ_BUFFER_BYTES = 256 * 1024
LARGE_BODY_BYTES = 1024 * 1024  # larger ones are written piece by piece, not in one call
ANSWER_LIMIT_BYTES = 256 * 1024 * 1024


class UpstreamError(Exception):
    """An attempt that failed; carries how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.fault.name)
        self.failure = failure


class Answer:
    """An engine's answer whose head has come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get("content-type", "application/json")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; raises UpstreamError when it is cut."""
        try:
            while chunk := await self._response.content.readany():
                yield chunk
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UpstreamError(Failure(Fault.CUT)) from error

    async def read(self) -> bytes:
        """The whole body; raises UpstreamError when it is cut or has no end."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > ANSWER_LIMIT_BYTES:
                raise UpstreamError(Failure(Fault.MALFORMED))
        return bytes(body)


class Upstream:
    """Sends requests to replicas."""

    def __init__(self, session: aiohttp.ClientSession, key: str) -> None:
        self._session = session
        self._authorization = {"authorization": f"Bearer {key}"} if key else {}

    @asynccontextmanager
    async def post(
        self,
        route: Route,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
    ) -> AsyncIterator[Answer]:
        """Send and wait for the head; leaving the block early aborts the request in the engine."""
        trace = SimpleNamespace(reused=False)
        sent_s = clock.now_s()
        try:
            response = await self._session.request(
                method,
                URL(route.url + path, encoded=True),
                data=io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body,
                headers={"content-type": "application/json", **self._authorization, **headers},
                trace_request_ctx=trace,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            stale = trace.reused and clock.now_s() - sent_s < STALE_WITHIN_S
            raise UpstreamError(Failure(_fault(error, stale=stale))) from error
        finished = False
        try:
            yield Answer(response)
            finished = response.content.at_eof()
        finally:
            if finished:
                response.release()
            else:
                response.close()


@asynccontextmanager
async def connect(key: str) -> AsyncIterator[Upstream]:
    """The pool of connections, for as long as the edge runs."""
    traces = aiohttp.TraceConfig()
    traces.on_connection_reuseconn.append(_note_reuse)
    connector = aiohttp.TCPConnector(
        limit=0, limit_per_host=0, keepalive_timeout=KEEP_ALIVE_S, socket_factory=_socket
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        skip_auto_headers=("user-agent", "accept", "accept-encoding"),
        read_bufsize=READ_BUFFER_BYTES,
        trace_configs=[traces],
    ) as session:
        yield Upstream(session, key)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    for option in TCP_KEEP_ALIVE:
        made.setsockopt(*option)
    return made


async def _note_reuse(_session: aiohttp.ClientSession, context: Any, _params: Any) -> None:
    context.trace_request_ctx.reused = True


def _fault(error: Exception, *, stale: bool) -> Fault:
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return Fault.REFUSED if refused else Fault.UNREACHABLE
    if isinstance(error, (aiohttp.ConnectionTimeoutError, TimeoutError, ssl.SSLError)):
        return Fault.UNREACHABLE
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return Fault.MALFORMED
    return Fault.STALE if stale else Fault.CUT

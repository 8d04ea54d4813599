"""The leg to the engines for what passes through piece by piece: uploads, and sockets.

Rules: as edge/upstream, whose faults it tells; a connection serves one upload or socket and is not
kept. aiohttp has both ends of a WebSocket, and sends a body as it comes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp
from yarl import URL

from edge.admission import RefusedError
from edge.alarm import Watch
from edge.core.problems import Problem
from edge.core.splice import Pieces
from edge.engine_connection import Take
from edge.upstream import Answer, Upstream, UpstreamError
from trimtab.model import Route
from trimtab.policy.classify import Failure, Fault

CONNECT_TIMEOUT_S = 2.0
HANDSHAKE_TIMEOUT_S = 10.0


class Cargo(Protocol):
    """Something to carry."""

    problem: Problem | None
    """What was wrong with it, found on the way."""

    def body(self, served_as: str) -> AsyncIterator[bytes]:
        """All of it, for a replica that knows the model so."""


class Carriers:
    """Connections to engines, one for each thing that passes."""

    def __init__(self, session: aiohttp.ClientSession, key: str) -> None:
        self._session = session
        self._authorization = {"authorization": f"Bearer {key}"} if key else {}

    def carrier(self, content_type: str, cargo: Cargo, adapter: str) -> Upstream:
        """What sends this cargo whenever it is asked to send something."""
        headers = self._authorization | {"content-type": content_type}
        return _Carrier(self._session, headers, cargo, adapter)

    async def socket(
        self, route: Route, path: str, headers: Mapping[str, str], frame_limit_bytes: int
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to a replica; raises UpstreamError."""
        try:
            return await self._session.ws_connect(
                URL(route.url + path, encoded=True),
                headers={**self._authorization, **headers},
                timeout=aiohttp.ClientWSTimeout(ws_close=HANDSHAKE_TIMEOUT_S),
                autoping=True,
                max_msg_size=frame_limit_bytes,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise UpstreamError(Failure(Fault.STATUS, error.status, error.message)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UpstreamError(Failure(_fault(error))) from error


class _Carrier(Upstream):
    """Sends one upload to whatever replica it is told."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        headers: Mapping[str, str],
        cargo: Cargo,
        adapter: str,
    ) -> None:
        self.watch = Watch()
        self._session = session
        self._headers = dict(headers)
        self._cargo = cargo
        self._adapter = adapter

    @asynccontextmanager
    async def post(
        self,
        route: Route,
        path: str,
        body: Pieces,
        headers: Mapping[str, str],
        method: str = "POST",
    ) -> AsyncIterator[Answer]:
        """Send it, in place of `body`, and wait for the head of the answer.

        Raises UpstreamError, or RefusedError where the cargo is to blame.
        """
        try:
            response = await self._session.request(
                method,
                URL(route.url + path, encoded=True),
                data=self._cargo.body(self._adapter or route.served_as),
                headers={**headers, **self._headers},
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _blame(error, self._cargo) from error
        try:
            yield _CarriedAnswer(response, self._cargo)
        finally:
            response.close()


class _CarriedAnswer(Answer):
    """The answer to an upload."""

    def __init__(self, response: aiohttp.ClientResponse, cargo: Cargo) -> None:
        self._content = response.content
        self._cargo = cargo
        self.status = response.status
        self.content_type = response.headers.get("content-type", "application/json")

    @property
    def is_read(self) -> bool:
        """Whether it is whole, and nothing of it left to read."""
        return self._content.at_eof()

    async def some(self, take: Take | None = None, take_chunk: Take | None = None) -> bytes:
        """What has come of the body, empty at its end; raises UpstreamError when it is cut."""
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _blame(error, self._cargo, Fault.CUT) from error


@asynccontextmanager
async def connect(key: str) -> AsyncIterator[Carriers]:
    """For as long as the edge runs."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        skip_auto_headers=("user-agent", "accept", "accept-encoding"),
    ) as session:
        yield Carriers(session, key)


def _blame(error: Exception, cargo: Cargo, fault: Fault | None = None) -> Exception:
    """Whose fault it was."""
    if cargo.problem is not None:
        return RefusedError(cargo.problem)
    return UpstreamError(Failure(fault or _fault(error)))


def _fault(error: Exception) -> Fault:
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return Fault.REFUSED if refused else Fault.UNREACHABLE
    if isinstance(error, (aiohttp.ConnectionTimeoutError, TimeoutError)):
        return Fault.UNREACHABLE
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return Fault.MALFORMED
    return Fault.CUT

"""One caller's connection: HTTP/1.1 in, by llhttp, a task for each request, answers out in order.

Rules: what two parties could read differently is refused, and what can't be read gets an answer of
the usual shape too, after those before it; then the connection ends. Of a head no more is kept than
it may have, of requests ahead no more than AHEAD_MAX. Who closes his sending side has left: his
request is cancelled at once. An end before all was read waits LINGER_S for the caller to see it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

import httptools

from edge.core import framing, problems
from edge.core.framing import FIELDS_MAX, HEAD_LIMIT_BYTES, URL_LIMIT_BYTES
from edge.core.problems import Problem
from edge.http.body import Body
from edge.http.flow import Flow
from edge.http.request import Request
from edge.http.writer import Writer

if TYPE_CHECKING:
    from edge.http.server import Server

HEAD_LIMIT_S = 30.0  # for a new connection's first request line and headers
KEEP_ALIVE_S = 75.0  # for the next one's; longer than common load balancers in front of us
LINGER_S = 5.0  # a reset would eat the answer of a caller that still sends
AHEAD_MAX = 16  # requests that wait for those before them; later ones are for the next connection
log = logging.getLogger("edge.http")


class Connection(asyncio.Protocol):
    """A protocol for asyncio, with llhttp's callbacks."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._flow = Flow()
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._in_head = self._moved = False
        self._unused_bytes = 0
        """That came since a part of a body, or the end of a head."""
        self._coming: Request | None = None
        """Whose body is not whole."""
        self._running: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._ahead: list[Request] = []
        self._flaw: Problem | None = None
        """What ends the connection after what came before it was answered."""
        self._deaf = False
        """Nothing that comes matters any more."""
        self._has_asked = False
        self._waits_since_s = self._loop.time()
        self._heir: asyncio.Protocol | None = None
        """Who goes on with what comes after the head of a WebSocket."""

    # For asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open; the first head has its time."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        self._timer = self._loop.call_later(min(HEAD_LIMIT_S, KEEP_ALIVE_S), self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._server.lost(self)
        self._leave()
        del self._parser  # it knows us: nobody should have to look for the circle
        if self._heir is not None:
            self._heir.connection_lost(exc)

    def eof_received(self) -> None:
        """The caller sends no more: it has left."""
        self._leave()
        if self._heir is not None:
            self._heir.eof_received()

    def pause_writing(self) -> None:
        """The caller reads slower than we write."""
        self._flow.pause()
        if self._heir is not None:
            self._heir.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._flow.resume()
        if self._heir is not None:
            self._heir.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        if self._heir is not None:
            self._heir.data_received(data)
            return
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._break_off(problems.bad_request(str(error)))
        if self._moved:
            self._moved, self._unused_bytes = False, 0
            return
        self._unused_bytes += len(data)
        if self._unused_bytes > HEAD_LIMIT_BYTES:
            self._break_off(problems.head_too_large(HEAD_LIMIT_BYTES))

    # For the parser

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._target = b""
        self._fields = []

    def on_url(self, part: bytes) -> None:
        """A part of what the request line asks for."""
        self._target += part
        if len(self._target) > URL_LIMIT_BYTES:
            self._break_off(problems.url_too_long(URL_LIMIT_BYTES))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or trailer: of these none matters."""
        if self._in_head and len(self._fields) <= FIELDS_MAX:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if self._deaf:
            return
        self._in_head, self._moved = False, True
        version, method = self._parser.get_http_version(), self._parser.get_method().decode()
        headers = framing.read(version, method, self._fields)
        if isinstance(headers, Problem):
            self._break_off(headers)
        elif not self._parser.should_upgrade() or framing.is_websocket(method, headers):
            self._take(version, method, headers)

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        if self._coming is not None:
            self._moved = True
            self._coming.body.feed(part)

    def on_message_complete(self) -> None:
        """A request is whole."""
        if self._coming is not None:
            self._coming.body.end()
            self._deaf = self._deaf or not self._coming.writer.keeps
            self._coming = None

    # Between both

    def hand_over(self, heir: asyncio.Protocol) -> None:
        """Somebody else goes on with the connection, from its last head on."""
        self._heir = heir
        self._timer.cancel()
        heir.connection_made(self._transport)
        heir.data_received(framing.head("GET", self._target, "1.1", self._fields))

    def retire(self) -> None:
        """End it, unless something is asked: a new one's first request is on its way."""
        if self._running is None and self._heir is None and self._has_asked and not self._in_head:
            self._end(lingers=False)

    def abort(self) -> None:
        """End it now, with whatever runs."""
        self._transport.abort()

    def _take(self, version: str, method: str, headers: dict[str, str]) -> None:
        """A request has come, maybe without its body."""
        if len(self._ahead) >= AHEAD_MAX:
            self._break_off(problems.bad_request(f"more than {AHEAD_MAX} others wait before it"))
            return
        upgrades, body = self._parser.should_upgrade(), Body(self._transport, self._server.watch)
        writer = Writer(self._transport, self._flow, body)
        writer.is_head, writer.is_old = method == "HEAD", version == "1.0"
        writer.keeps = self._parser.should_keep_alive() and not upgrades
        request = Request(method, self._target.decode("latin-1"), headers, body, writer)
        request.hand_over = self.hand_over if upgrades else None
        self._coming, self._has_asked = request, True
        if not upgrades:
            self._fields = []  # else an heir reads them again
        if self._running is None:
            self._begin(request)
        else:
            self._ahead.append(request)

    def _begin(self, request: Request) -> None:
        self._running = request
        self._task = self._server.tasks.once("request", self._serve(request))

    async def _serve(self, request: Request) -> None:
        """Answer it, and go on."""
        try:
            response = await self._server.handle(request)
            if self._heir is not None:
                self._running = self._task = None
                return
            if not response.is_out:
                request.writer.send(response)
            if request.writer.is_full and self._ahead:
                await request.writer.drain()
        except ConnectionError:  # said by who can't go on, of a caller that still listens
            self._transport.abort()
        except Exception:
            log.exception("a request found no answer")
            self._transport.abort()
        except asyncio.CancelledError:
            self._task = None  # it will know this error, that this frame, and that us
            self._transport.abort()
            raise
        else:
            self._go_on(request)

    def _go_on(self, last: Request) -> None:
        """What comes after an answer."""
        self._running = self._task = None
        last.body.drop()
        if not last.writer.keeps or (self._server.retiring and not self._ahead):
            self._end(lingers=not last.body.is_whole)
        elif self._ahead:
            self._begin(self._ahead.pop(0))
        elif self._flaw is not None:
            self._refuse(self._flaw)
        else:
            self._waits_since_s = self._loop.time()

    def _stay(self, rest: bytes) -> None:
        """After a head that asks for another protocol: a WebSocket, or none that we speak.

        Then llhttp must read the same without that wish, since it has skipped the body.
        """
        if self._deaf:
            return
        method, version = self._parser.get_method().decode(), self._parser.get_http_version()
        fields = [field for field in self._fields if field[0].lower() != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(framing.head(method, self._target, version, fields) + rest)

    def _break_off(self, problem: Problem) -> None:
        """What follows can't be read."""
        if self._deaf:
            return
        self._deaf = True
        if self._coming is not None:
            self._coming.body.break_off()
        elif self._running is not None:
            self._flaw = problem
        else:
            self._refuse(problem)

    def _refuse(self, problem: Problem) -> None:
        """Answer what never became a request."""
        self._deaf = True
        nothing = Body(self._transport, self._server.watch)
        Writer(self._transport, self._flow, nothing).send(self._server.refuse(problem))
        self._end(lingers=True)

    def _end(self, *, lingers: bool) -> None:
        """The last answer is out."""
        self._deaf = True
        if not lingers:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._timer.cancel()
        self._timer = self._loop.call_later(LINGER_S, self._transport.close)

    def _leave(self) -> None:
        """The caller has left."""
        self._deaf = True
        self._timer.cancel()
        self._ahead.clear()
        if self._task is not None:
            self._task.cancel()

    def _look(self) -> None:
        """Whether it waits for a head too long; if not, look again when that may be."""
        limit_s = KEEP_ALIVE_S if self._has_asked else HEAD_LIMIT_S
        left_s = limit_s
        if self._running is None:
            left_s -= self._loop.time() - self._waits_since_s
        if left_s > 0.0:
            self._timer = self._loop.call_later(left_s, self._look)
        elif self._in_head or not self._has_asked:
            self._refuse(problems.too_slow("request line and headers", limit_s))
        else:
            self._transport.close()

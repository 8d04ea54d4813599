"""One caller's connection, below the requests: what is no HTTP, comes too slowly, or is too large.

Rules: even what aiohttp can't read gets an answer in OpenAI's shape, then the connection ends; of a
head no more is kept than it may have; a body whose framing breaks ends the wait for it at once; who
closes his sending side has left.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from itertools import chain

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from edge import answers
from edge.core import problems
from edge.core.headers import Journey
from edge.core.problems import Problem

FIELD_LIMIT_BYTES = 32 * 1024  # aiohttp's 8 KiB refuses long JWTs and cookies
HEAD_LIMIT_BYTES = 64 * 1024
FIELDS_MAX = 128
URL_LIMIT_BYTES = 16 * 1024
LINGER_S = 2.0
HEAD_LIMIT_S = 30.0  # for a new connection's first request line and headers


class Connection(RequestHandler):
    """One caller's connection; its later heads have aiohttp's keep-alive time, as idle ones."""

    _head_bytes = 0
    """Of a head that is not whole yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the first head its time."""
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._head_limit = loop.call_later(HEAD_LIMIT_S, self._end_if_silent)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing to wait for any more."""
        self._head_limit.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse it, within the limits that aiohttp has not."""
        waits = self._waiter is not None and not self._messages
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if waits else 0
        if self._messages:
            if self._head_bytes > HEAD_LIMIT_BYTES or not waits:
                self._check_heads()
            self._head_bytes = 0
            if isinstance(self._messages[-1][0], _ErrInfo):
                self._end_body()
        elif self._head_bytes > HEAD_LIMIT_BYTES:
            self._refuse(problems.head_too_large(HEAD_LIMIT_BYTES))

    def _check_heads(self) -> None:
        """Errors in place of requests whose heads are too large as a whole."""
        for at, (message, _) in enumerate(self._messages):
            if not isinstance(message, _ErrInfo):
                size_bytes = sum(map(len, chain.from_iterable(message.raw_headers)))
                if size_bytes > HEAD_LIMIT_BYTES:
                    error = LineTooLong(b"", HEAD_LIMIT_BYTES)
                    self._messages[at] = _ErrInfo(431, error, error.message), EMPTY_PAYLOAD

    def _end_body(self) -> None:
        """What follows can't be read: nobody need wait for the rest of a body."""
        if self._current_request is not None and not self._current_request.content.is_eof():
            self._current_request.content.set_exception(RequestPayloadError("broken framing"))
            self._current_request.content.feed_eof()

    def _end_if_silent(self) -> None:
        if not self._request_count:
            self._refuse(problems.too_slow("request line and headers", HEAD_LIMIT_S))

    def _refuse(self, problem: Problem) -> None:
        """End a connection whose head never became a request."""
        if self.transport is None:
            return
        body, request_id = problem.body(), answers.new_request_id()
        headers = problem.headers(request_id) | Journey(request_id).headers(0.0)
        headers |= {"content-length": str(len(body)), "connection": "close"}
        head = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"{head}\r\n".encode() + body)
        self._force_close = True  # what still comes is left unread, but a while: a reset would
        asyncio.get_running_loop().call_later(LINGER_S, self.transport.close)  # eat the answer

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What could not be read as HTTP gets our envelope too."""
        request_id = answers.new_request_id()
        response = answers.respond(_problem(status, exc, message), request_id)
        response.headers.update(Journey(request_id).headers(0.0))
        response.force_close()
        return response


def _problem(status: int, error: BaseException | None, message: str | None) -> Problem:
    if status >= 500:
        return problems.internal()
    if isinstance(error, LineTooLong):
        if error.args[1] == URL_LIMIT_BYTES:
            return problems.url_too_long(URL_LIMIT_BYTES)
        return problems.head_too_large(error.args[1])
    # what follows the colon repeats what came, and that may be a key
    what = (message or str(error)).partition(":")[0]
    if what.startswith("Too many headers"):
        return problems.too_many_headers(FIELDS_MAX)
    return problems.bad_request(what)

"""Requests as callers may send them, cut anywhere; what they are answered, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import answers
from edge.http import connection as module
from edge.http.body import READ_BUFFER_BYTES, BrokenBodyError
from edge.http.connection import AHEAD_MAX, Connection
from edge.http.request import Request
from edge.http.response import Response
from edge.http.server import serving
from tests.fakes.transport import FakeTransport
from tests.fakes.wait import until

GET = b"GET /a%20b?q=1 HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;ext=1\r\nhe\r\n3\r\nllo\r\n0\r\nx-trailer: 1\r\n\r\n"
)
H2C = (
    b"POST /h HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    b"Content-Length: 2\r\n\r\nhi"
)
OLD = b"POST /o HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi"
LAST = b"DELETE http://h/l HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
KINDS = {
    GET: "GET /a b ",
    POST: "POST /p hello",
    CHUNKED: "POST /c hello",
    H2C: "POST /h hi",
    OLD: "POST /o hi",
}
Handle = Callable[[Request], Awaitable[Response]]


async def echo(request: Request) -> Response:
    """What came, after some turns of the loop."""
    await asyncio.sleep(0)
    body = b""
    while part := await request.body.more(20.0):
        body += part
    return Response(200, f"{request.method} {request.path} ".encode() + body)


@asynccontextmanager
async def called(handle: Handle = echo) -> AsyncIterator[tuple[Connection, FakeTransport]]:
    """A connection that has just been opened."""
    async with serving(handle, answers.refuse) as server:
        connection, transport = server(), FakeTransport()
        connection.connection_made(transport)
        yield connection, transport
        connection.connection_lost(None)


async def said(parts: Sequence[bytes], count: int, handle: Handle = echo) -> list[bytes]:
    """So many answers to what comes in these parts."""
    async with called(handle) as (connection, transport):
        for part in parts:
            connection.data_received(part)
            await asyncio.sleep(0)
        await until(lambda: transport.written.count(b"HTTP/1.1 ") >= count)
        await asyncio.sleep(0)
        return transport.written.split(b"HTTP/1.1 ")[1:]


@st.composite
def cut(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Requests, and the parts in which they come."""
    asked = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=5))
    text = b"".join(asked)
    at = [0, *sorted(draw(st.sets(st.integers(1, len(text) - 1), max_size=12))), len(text)]
    return asked, [text[a:b] for a, b in pairwise(at)]


@given(cut())
def test_where_it_is_cut_does_not_matter(case: tuple[list[bytes], list[bytes]]) -> None:
    asked, parts = case
    answered = asyncio.run(said(parts, len(asked)))
    assert [text.partition(b"\r\n\r\n")[2].decode() for text in answered] == [
        KINDS[text] for text in asked
    ]
    assert all(text.startswith(b"200 OK\r\n") for text in answered)


@pytest.mark.parametrize("text", KINDS)
def test_not_even_at_every_byte(text: bytes) -> None:
    parts = [text[at : at + 1] for at in range(len(text))]
    [answer] = asyncio.run(said(parts, 1))
    assert answer.endswith(KINDS[text].encode())


async def test_a_request_is_read_as_the_rfc_says() -> None:
    seen: list[Request] = []

    async def look(request: Request) -> Response:
        seen.append(request)
        return Response()

    await said([POST, GET, LAST], 3, look)
    post, get, last = seen
    assert post.headers == {"host": "x", "x-a": "1, 2", "content-length": "5"}
    assert (get.target, get.path, get.query) == ("/a%20b?q=1", "/a b", {"q": "1"})
    assert (last.method, last.path) == ("DELETE", "/l")


async def test_the_last_request_is_the_last() -> None:
    async with called() as (connection, transport):
        connection.data_received(LAST + GET)
        await until(lambda: transport.closed)
        assert transport.written.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in transport.written


async def test_requests_ahead_have_an_end() -> None:
    answered = await said([GET * (AHEAD_MAX + 5)], AHEAD_MAX + 2)
    assert [text[:3] for text in answered] == [b"200"] * (AHEAD_MAX + 1) + [b"400"]


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([b"GET / HTTP/1.1\r\nx: "] + [b"y" * 8_000] * 10, b"431"),
        ([b"GET /"] + [b"y" * 8_000] * 3, b"414"),
        ([CHUNKED[:-40] + b"9;"] + [b"x" * 8_000] * 10, b"400"),
        ([CHUNKED[:-2]] + [b"x: y\r\n" * 2_000] * 10, b"400"),
        ([GET, b"\x16\x03\x01"], b"400"),
    ],
    ids=["header", "url", "extension", "trailers", "no http"],
)
async def test_what_has_no_end_is_refused(parts: list[bytes], status: bytes) -> None:
    async def read(request: Request) -> Response:
        try:
            return await echo(request)
        except BrokenBodyError:
            return Response(400)

    async with called(read) as (connection, transport):
        for part in parts:
            connection.data_received(part)
        await until(lambda: transport.half_closed)
        assert transport.written.rpartition(b"HTTP/1.1 ")[2].startswith(status)
        connection.data_received(GET)  # is dropped


async def test_a_large_body_waits_for_its_reader() -> None:
    reads = asyncio.Event()

    async def late(request: Request) -> Response:
        await reads.wait()
        return await echo(request)

    async with called(late) as (connection, transport):
        size = 3 * READ_BUFFER_BYTES
        connection.data_received(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        sent = 0
        while transport.reads:
            connection.data_received(b"x" * 60_000)
            sent += 60_000
        assert READ_BUFFER_BYTES < sent <= READ_BUFFER_BYTES + 60_000
        reads.set()
        await until(lambda: transport.reads)
        connection.data_received(b"x" * (size - sent))
        await until(lambda: len(transport.written) > size)


async def test_a_large_body_that_nobody_wants_is_dropped() -> None:
    async def ignore(_request: Request) -> Response:
        return Response()

    async with called(ignore) as (connection, transport):
        size = 2 * READ_BUFFER_BYTES
        connection.data_received(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        connection.data_received(b"x" * size)
        assert not transport.reads
        await until(lambda: transport.reads)
        connection.data_received(GET)
        await until(lambda: transport.written.count(b" 200 OK") == 2)


@pytest.mark.parametrize("leave", ["connection_lost", "eof_received"])
@pytest.mark.parametrize("text", [GET, POST[:-2], GET + POST])
async def test_who_leaves_is_served_no_more(text: bytes, leave: str) -> None:
    begun, cancelled = [], []

    async def serve(request: Request) -> Response:
        begun.append(request)
        try:
            await request.body.more(20.0)
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(request)
            raise
        return Response()

    async with serving(serve, answers.refuse) as server:
        connection, transport = server(), FakeTransport()
        connection.connection_made(transport)
        connection.data_received(text)
        await until(lambda: len(begun) == 1)
        if leave == "eof_received":
            connection.eof_received()
            await until(lambda: transport.aborted)
        connection.connection_lost(None)
        await until(lambda: cancelled == begun)
        assert not server.connections
        assert transport.written == b""
    assert len(begun) == 1


async def test_an_answer_before_the_body_ends_the_connection_but_not_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.01)

    async def refuse(_request: Request) -> Response:
        return Response(401)

    async with called(refuse) as (connection, transport):
        connection.data_received(POST[:-2])
        await until(lambda: transport.half_closed)
        assert b"connection: close\r\n" in transport.written
        connection.data_received(b"lo" + GET)
        await until(lambda: transport.closed)
        assert transport.written.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("error", [ConnectionResetError, ValueError])
async def test_who_can_not_be_answered_is_hung_up_on(error: type[Exception]) -> None:
    async def fail(_request: Request) -> Response:
        raise error

    async with called(fail) as (connection, transport):
        connection.data_received(GET)
        await until(lambda: transport.aborted)
        assert transport.written == b""

"""Answers as engines may send them, cut into pieces and cut off anywhere."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import engine_connection
from edge.engine_connection import Connection, UpstreamError
from tests.fakes.transport import FakeTransport
from trimtab.policy.classify import Fault

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
SIZED = HEAD + b"content-length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
TRAILED = HEAD + b"transfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"
UNTIL_CLOSE = HEAD + b"\r\nhello"
CODED = (
    HEAD + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
BUSY = b"HTTP/1.1 503 Busy\r\nCONTENT-TYPE: text/plain\r\nContent-Length: 5\r\n\r\nhello"
LARGE = bytes(range(256)) * (3 * engine_connection.PIECE_BYTES // 256)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n"
ENDING = {  # by themselves
    "sized": SIZED,
    "chunked": CHUNKED,
    "trailed": TRAILED,
    "coded": CODED,
    "busy": BUSY,
    "interim": INTERIM + SIZED,
}
LAST = {  # the connection can't go on after these
    "close": HEAD + b"connection: close\r\ncontent-length: 5\r\n\r\nhello",
    "old": b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello",
    "another behind": SIZED + SIZED,
    "chunked, another behind": CHUNKED + SIZED,
    "garbage behind": SIZED + b"garbage\r\n\r\n",
}
MALFORMED = {
    "no http": b"SSH-2.0-OpenSSH\r\n",
    "http/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "two lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "no length": HEAD + b"content-length: five\r\n\r\nhello",
    "length and chunks": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no chunk": HEAD + b"transfer-encoding: chunked\r\n\r\nhello",
    "no colon": b"HTTP/1.1 200 OK\r\nhello\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "endless name": HEAD + b"x" * 70_000,
    "endless value": HEAD + b"x: " + b"y" * 70_000,
    "endless head": HEAD + b"x: y\r\n" * 12_000,
    "endless interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 3_000,
    "endless trailer": CHUNKED[:-2] + b"x: y\r\n" * 30_000,
    "endless extension": HEAD + b"transfer-encoding: chunked\r\n\r\n5;" + b"x" * 70_000,
}


def asked() -> tuple[Connection, FakeTransport]:
    """A connection with a request out."""
    made, transport = Connection(), FakeTransport()
    made.connection_made(transport)
    assert made.usable
    made.send(b"POST / HTTP/1.1\r\n\r\n", b"{}")
    assert transport.written == b"POST / HTTP/1.1\r\n\r\n{}"
    assert not made.usable
    return made, transport


async def uploading(end: bytes) -> tuple[Connection, FakeTransport]:
    """Half of a large request is out, and the engine reads no more; then comes `end`, if any."""
    made, transport = Connection(), FakeTransport()
    made.connection_made(transport)
    async with asyncio.TaskGroup() as group:
        upload = group.create_task(made.upload(b"POST / HTTP/1.1\r\n\r\n", [LARGE[:9], LARGE[9:]]))
        made.pause_writing()
        await asyncio.sleep(0)
        made.resume_writing()
        made.pause_writing()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not upload.done()
        if end:
            feed(made, end)
        else:
            made.resume_writing()
    return made, transport


def feed(made: Connection, data: bytes, size: int = 65_536) -> None:
    for start in range(0, len(data), size):
        made.data_received(data[start : start + size])


async def whole(made: Connection) -> bytes:
    await made.head()
    assert made.header(b"content-type") == "text/plain"
    body = b""
    while part := await made.read():
        body += part
    return body


async def fault(made: Connection) -> Fault:
    with pytest.raises(UpstreamError) as caught:
        await whole(made)
    return caught.value.failure.fault


@pytest.mark.parametrize("size", [1, 2, 7, 65_536])
@pytest.mark.parametrize("name", ENDING)
async def test_an_answer_in_pieces_is_whole_and_the_connection_goes_on(
    name: str, size: int
) -> None:
    made, transport = asked()
    for _ in range(3):
        feed(made, ENDING[name], size)
        assert await whole(made) == b"hello"
        assert made.status == (503 if name == "busy" else 200)
        assert made.finish()
        assert made.usable
        assert not transport.aborted
        made.send(b"GET / HTTP/1.1\r\n\r\n", b"")


async def test_a_large_request_is_sent_as_fast_as_it_is_taken() -> None:
    made, transport = await uploading(b"")
    assert transport.written == b"POST / HTTP/1.1\r\n\r\n" + LARGE
    feed(made, SIZED)
    assert await whole(made) == b"hello"
    assert made.finish()


async def test_an_early_answer_ends_a_large_request_and_the_connection() -> None:
    made, transport = await uploading(BUSY)
    assert len(transport.written) < len(LARGE)
    assert await whole(made) == b"hello"
    assert made.status == 503
    assert not made.finish()
    made, _ = await uploading(b"nonsense\r\n\r\n")
    assert await fault(made) is Fault.MALFORMED


@pytest.mark.parametrize("name", LAST)
async def test_the_connection_ends_with_an_answer_that_says_so_or_has_more_behind(
    name: str,
) -> None:
    made, transport = asked()
    feed(made, LAST[name])
    assert await whole(made) == b"hello"
    assert not made.finish()
    assert transport.aborted
    assert not made.usable


@pytest.mark.parametrize("size", [1, 65_536])
async def test_an_answer_without_an_end_of_its_own_ends_with_the_connection(size: int) -> None:
    made, _ = asked()
    feed(made, UNTIL_CLOSE, size)
    made.eof_received()
    made.connection_lost(None)
    assert await whole(made) == b"hello"
    assert not made.finish()


@pytest.mark.parametrize("answer", [*ENDING.values(), *LAST.values()][:8])
@pytest.mark.parametrize("ends", ["eof", "reset"])
async def test_an_answer_cut_off_anywhere_is_cut(answer: bytes, ends: str) -> None:
    for length in range(len(answer)):
        made, _ = asked()
        feed(made, answer[:length])
        if ends == "eof":
            made.eof_received()
        made.connection_lost(None if ends == "eof" else ConnectionResetError())
        assert await fault(made) is Fault.CUT
        assert made.heard is (length > 0)
        assert not made.finish()


async def test_what_came_before_a_cut_is_read_first() -> None:
    made, _ = asked()
    feed(made, CHUNKED[:-9])
    made.connection_lost(ConnectionResetError())
    await made.head()
    assert await made.read() == b"hel"
    with pytest.raises(UpstreamError):
        await made.read()


@pytest.mark.parametrize("size", [1_000, 65_536])
@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_http_is_malformed(name: str, size: int) -> None:
    made, transport = asked()
    feed(made, MALFORMED[name], size)
    assert await fault(made) is Fault.MALFORMED
    assert transport.aborted
    assert not made.finish()


async def test_a_long_stream_of_small_chunks_is_not_too_much() -> None:
    made, transport = asked()
    feed(made, HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for _ in range(20_000):
        feed(made, b"1;ext=1\r\nx\r\n")
        assert await made.read() == b"x"
    assert not transport.aborted


async def test_an_idle_connection_that_says_anything_ends() -> None:
    made, transport = asked()
    feed(made, SIZED)
    assert await whole(made) == b"hello"
    assert made.finish()
    feed(made, SIZED)
    assert transport.aborted
    assert not made.usable


async def test_an_idle_connection_that_the_engine_ends_is_not_used() -> None:
    made, _ = asked()
    feed(made, SIZED)
    await whole(made)
    made.finish()
    made.eof_received()
    assert not made.usable


async def test_a_connection_left_early_or_with_an_unsent_request_ends() -> None:
    made, transport = asked()
    feed(made, SIZED[:-1])
    await made.head()
    assert not made.finish()
    assert transport.aborted

    made, transport = asked()
    transport.unsent_bytes = 1
    feed(made, SIZED)
    await whole(made)
    assert not made.finish()


async def test_an_unread_answer_stops_the_reading() -> None:
    made, transport = asked()
    size = engine_connection.READ_BUFFER_BYTES + 2
    feed(made, HEAD + b"content-length: %d\r\n\r\n" % size + b"x" * (size - 1))
    assert not transport.reads
    assert len(await made.read()) == size - 1
    assert transport.reads
    feed(made, b"x")
    assert await made.read() == b"x"
    assert await made.read() == b""
    assert made.finish()


@given(
    parts=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    interim=st.booleans(),
    chunked=st.booleans(),
    cuts=st.lists(st.integers(0, 600), max_size=8),
)
async def test_any_body_in_any_pieces(
    parts: list[bytes], interim: bool, chunked: bool, cuts: list[int]
) -> None:
    body = b"".join(parts)
    if chunked:
        framed = b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in parts)
        answer = HEAD + b"transfer-encoding: Chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    else:
        answer = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    answer = INTERIM * interim + answer
    made, _ = asked()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(answer)], strict=True):
        if piece := answer[start:end]:
            made.data_received(piece)
    assert await whole(made) == body
    assert made.finish()


async def test_who_waits_may_take_what_comes_in_the_same_moment() -> None:
    made, _ = asked()
    feed(made, CHUNKED[: CHUNKED.index(b"2\r\n")])
    await made.head()
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        if data == b"no":
            return False
        taken.append(data)
        return True

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(made.read(take))
        await asyncio.sleep(0)
        for part in (b"a", b"b", b"c"):
            made.data_received(b"1\r\n%b\r\n" % part)
        assert taken == [b"a", b"b", b"c"]
        await asyncio.sleep(0)
        assert not reading.done()
        made.data_received(b"2\r\nno\r\n")
    assert reading.result() == b"no"
    made.data_received(b"1\r\nd\r\n")
    assert await made.read(take) == b"d"
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(made.read(take))
        await asyncio.sleep(0)
        made.data_received(b"1\r\ne\r\n0\r\n\r\n")
    assert (taken[-1], reading.result()) == (b"e", b"")
    assert made.finish()


async def test_chunks_may_be_taken_as_they_are_framed_where_nothing_else_is_begun() -> None:
    made, _ = asked()
    feed(made, CHUNKED[: CHUNKED.index(b"2\r\n")])
    await made.head()
    seen: list[bytes] = []

    def take_chunk(data: bytes) -> bool:
        seen.append(data)
        return data == b"1\r\nx\r\n"

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(made.read(lambda data: data[:2] != b"no", take_chunk))
        await asyncio.sleep(0)
        came = [b"1\r\na\r\n", b"1\r\nx\r\n", b"1", b"\r\nb\r\n", b"1\r\nb\r\n1", b"\r\nb\r\n"]
        came += [b"1\r\nx\r\n1\r\nc\r", b"\n", b"1\r\nx\r\n", b"1\r\nx\r\n", b"2\r\nno\r\n"]
        for data in (*came, b"1\r\nx\r\n"):
            made.data_received(data)
        assert seen == [came[number] for number in (1, 2, 4, 6, 9, 10)]
    assert reading.result() == b"nox"  # what waits goes before what comes

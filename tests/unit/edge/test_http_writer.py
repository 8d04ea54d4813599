"""Answers as bytes: whole ones and streams, to new callers and old ones."""

from __future__ import annotations

import asyncio

import pytest

from edge.alarm import Watch
from edge.http.body import Body
from edge.http.flow import Flow
from edge.http.response import Response, head
from edge.http.writer import JOINED_MAX_BYTES, Writer
from tests.fakes.transport import FakeTransport
from tests.fakes.wait import until


def writer(*, old: bool = False, head: bool = False) -> tuple[Writer, FakeTransport, Flow]:
    transport, flow = FakeTransport(), Flow()
    body = Body(transport, Watch())
    body.end()
    made = Writer(transport, flow, body)
    made.is_old, made.is_head, made.keeps = old, head, True
    return made, transport, flow


def sent(transport: FakeTransport) -> tuple[bytes, bytes]:
    """Head and body."""
    lines, _, body = transport.written.partition(b"\r\n\r\n")
    return lines, body


async def test_a_whole_answer_says_its_length() -> None:
    made, transport, _ = writer()
    response = Response(200, b"{}", {"x-a": "é"})
    made.send(response)
    lines, body = sent(transport)
    assert lines.startswith(b"HTTP/1.1 200 OK\r\nx-a: \xe9\r\ncontent-length: 2\r\ndate: ")
    assert body == b"{}"
    assert response.is_out
    assert made.keeps


@pytest.mark.parametrize("status", [204, 304])
async def test_some_have_no_body(status: int) -> None:
    made, transport, _ = writer()
    made.send(Response(status))
    assert b"content-length" not in transport.written


async def test_who_asks_for_the_head_gets_no_more() -> None:
    made, transport, _ = writer(head=True)
    made.send(Response(200, b"hello"))
    lines, body = sent(transport)
    assert b"content-length: 5" in lines
    assert body == b""


async def test_a_large_one_is_not_copied() -> None:
    made, transport, _ = writer()
    made.send(Response(200, b"x" * (JOINED_MAX_BYTES + 1)))
    assert sent(transport)[1] == b"x" * (JOINED_MAX_BYTES + 1)


async def test_a_stream_has_chunks_and_an_end() -> None:
    made, transport, _ = writer()
    made.begin(Response(), b"hello")
    made.write(b"")
    made.write(b"x" * 16)
    made.end()
    lines, body = sent(transport)
    assert b"transfer-encoding: chunked" in lines
    assert body == b"5\r\nhello\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"
    assert made.keeps


async def test_one_that_begins_with_nothing_has_not_ended() -> None:
    made, transport, _ = writer()
    made.begin(Response(), b"")
    assert sent(transport)[1] == b""


async def test_one_that_is_cut_has_no_end() -> None:
    made, transport, _ = writer()
    made.begin(Response(), b"hello")
    made.cut()
    assert sent(transport)[1] == b"5\r\nhello\r\n"
    assert not made.keeps


async def test_old_callers_get_what_they_understand() -> None:
    made, transport, _ = writer(old=True)
    made.send(Response(200, b"hello"))
    assert b"connection: keep-alive" in transport.written
    made, transport, _ = writer(old=True)
    made.begin(Response(), b"hello")
    made.write(b", world")
    made.end()
    lines, body = sent(transport)
    assert b"chunked" not in lines
    assert b"connection: close" in lines
    assert body == b"hello, world"
    assert not made.keeps


async def test_to_who_has_left_nothing_is_said() -> None:
    made, transport, _ = writer()
    transport.close()
    made.begin(Response(), b"hello")
    made.write(b"hello")
    made.end()
    assert transport.written == b""


async def test_no_value_ends_its_line() -> None:
    for value in ("a\r\nb: c", "a\nb", "a\rb"):
        with pytest.raises(ValueError, match="end of a line"):
            head(200, {"x": value})
    assert head(529, {}).startswith(b"HTTP/1.1 529 \r\n")


async def test_all_who_wait_for_room_go_on_together() -> None:
    made, _, flow = writer()
    await made.drain()
    flow.pause()
    assert made.is_full
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(made.drain()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await until(waiting[0].done)
        assert not waiting[1].done()
        flow.resume()
    assert not made.is_full

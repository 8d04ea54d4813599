"""Requests that no SDK sends: framing tricks, broken chunks, half-closed and idle connections."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.replay import ReplayEngine, replay_engine
from tests.fakes.wait import until

IDLE_CONNECTIONS = int(os.environ.get("TRIMTAB_TEST_IDLE", "300"))
BODY = f'{{"model":"{MODEL}","messages":[]}}'
LENGTH = f"content-length: {len(BODY)}\r\n"
CHUNKED = "transfer-encoding: chunked\r\n"
HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    f"authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
)
SMUGGLED = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKS = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"


@dataclass(slots=True)
class Place:
    """An edge before an engine that replays."""

    edge: EdgeUnderTest
    engine: ReplayEngine

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self.edge.url.rpartition(":")[2])

    async def say(self, *parts: str | bytes) -> bytes:
        """What comes back until the edge ends the connection; each part in a packet of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with closing(writer):
            async with asyncio.timeout(20):
                for part in parts:
                    writer.write(part.encode("latin-1") if isinstance(part, str) else part)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                return await reader.read()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with replay_engine() as engine, running_edge([engine.url]) as edge:
        yield Place(edge, engine)


REFUSED = {
    "CL and TE": HEAD + LENGTH + CHUNKED + "\r\n0\r\n\r\n" + SMUGGLED,
    "TE and CL": HEAD + CHUNKED + LENGTH + "\r\n0\r\n\r\n" + SMUGGLED,
    "two equal CL": HEAD + LENGTH + LENGTH + "\r\n" + BODY,
    "two CL": HEAD + LENGTH + "content-length: 3\r\n\r\n" + BODY,
    "CL list": HEAD + LENGTH.replace("\r\n", ", 30\r\n\r\n") + BODY,
    "CL with a sign": HEAD + "content-length: +30\r\n\r\n" + BODY,
    "CL below zero": HEAD + "content-length: -1\r\n\r\n" + BODY,
    "CL in hex": HEAD + "content-length: 0x1e\r\n\r\n" + BODY,
    "CL of 23 digits": HEAD + "content-length: 99999999999999999999999\r\n\r\n" + BODY,
    "TE that only looks chunked": HEAD + "transfer-encoding: xchunked\r\n\r\n" + CHUNKS,
    "TE chunked twice": HEAD + CHUNKED + CHUNKED + "\r\n" + CHUNKS,
    "TE chunked, then another": HEAD + "transfer-encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "TE gzip": HEAD + "transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "blank before the colon": HEAD + "transfer-encoding : chunked\r\n\r\n" + CHUNKS,
    "vertical tab": HEAD + "transfer-encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "folded line": HEAD + "x-a: b\r\n c: d\r\n" + LENGTH + "\r\n" + BODY,
    "bare LF": (HEAD + LENGTH + "\r\n" + BODY).replace("\r\n", "\n"),
    "bare CR": HEAD + "x-a: b\rc\r\n" + LENGTH + "\r\n" + BODY,
    "NUL": HEAD + "x-a: b\0c\r\n" + LENGTH + "\r\n" + BODY,
    "no host": HEAD.replace("host: x\r\n", "") + LENGTH + "\r\n" + BODY,
    "two hosts": HEAD + "host: y\r\n" + LENGTH + "\r\n" + BODY,
    "chunk size is no number": HEAD + CHUNKED + "\r\nzz\r\n" + BODY + "\r\n0\r\n\r\n",
    "chunk size below zero": HEAD + CHUNKED + "\r\n-1\r\n" + BODY + "\r\n0\r\n\r\n",
    "chunk size with 0x": HEAD + CHUNKED + "\r\n0x" + CHUNKS,
    "chunk size of 18 digits": HEAD + CHUNKED + "\r\nffffffffffffffffff\r\n" + BODY,
    "chunk without its end": HEAD + CHUNKED + "\r\n" + CHUNKS.replace("}\r\n", "}"),
    "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_framing_that_two_could_read_differently_is_refused(place: Place, name: str) -> None:
    said = await place.say(REFUSED[name])
    assert said.count(b"HTTP/1.") == 1
    head, _, body = said.partition(b"\r\n\r\n")
    assert b" 400 " in head.partition(b"\r\n")[0]
    assert b"x-request-id: req_" in head
    assert json.loads(body)["error"]["code"] == "bad_request"
    assert KEY.encode() not in body
    assert place.engine.received == []


async def test_a_chunk_that_breaks_later_ends_the_wait(place: Place) -> None:
    said = await place.say(HEAD + CHUNKED + "\r\n" + CHUNKS[:-5], "zz\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.") == 1
    assert b"not framed as its headers say" in said
    assert place.engine.received == []


@pytest.mark.parametrize(
    "request_text",
    [
        HEAD + CHUNKED + "\r\n" + CHUNKS,
        HEAD + CHUNKED + "\r\n" + CHUNKS.replace("\r\n", ";a=b\r\n", 1),
        HEAD + CHUNKED + "\r\n" + CHUNKS[:-2] + "x-vllm-priority: -9\r\nhost: evil\r\n\r\n",
        HEAD.replace(" /v1", " http://evil/v1") + LENGTH + "\r\n" + BODY,
        HEAD.replace("1.1", "1.0") + LENGTH + "\r\n" + BODY,
        HEAD.replace("close", "upgrade, close") + "upgrade: h2c\r\n" + LENGTH + "\r\n" + BODY,
    ],
    ids=["chunks", "chunk extension", "trailers", "absolute URL", "HTTP/1.0", "h2c"],
)
async def test_what_is_odd_but_clear_reaches_the_engine_in_plain_form(
    place: Place, request_text: str
) -> None:
    assert b" 200 OK" in await place.say(request_text)
    [received] = place.engine.received
    assert received.line == "POST /v1/chat/completions HTTP/1.1"
    assert received.body.decode() == BODY
    assert sorted(name for name, _ in received.headers) == [
        *("content-length", "content-type", "host", "x-request-id"),
    ]
    assert dict(received.headers)["host"] in place.engine.url


async def test_pipelined_requests_are_answered_in_order(place: Place) -> None:
    kept = HEAD.replace("connection: close\r\n", "")
    one = kept + LENGTH + "\r\n" + BODY
    said = await place.say(one + SMUGGLED + one + HEAD + LENGTH + "\r\n" + BODY)
    ids = [part.partition(b'"')[0][:12] for part in said.split(b'{"id":"')[1:]]
    assert said.count(b"HTTP/1.1 200 OK") == 4
    assert said.find(b'{"status":"ok"}') < said.rfind(b'{"id":"')
    assert len(ids) == len(place.engine.received) == 3


LIMITS = {
    "one header": (HEAD + "x-a: " + "y" * 33_000 + "\r\n\r\n", 431),
    "a header's name": (HEAD + "y" * 33_000 + ": x\r\n\r\n", 431),
    "all headers": (HEAD + "".join(f"x-{i}: {'y' * 9_000}\r\n" for i in range(8)) + "\r\n", 431),
    "how many": (HEAD + "".join(f"x-{i}: y\r\n" for i in range(130)) + "\r\n", 431),
    "the URL": (HEAD.replace("completions", "c" * 17_000) + "\r\n", 414),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_a_head_has_its_limits(place: Place, name: str) -> None:
    text, status = LIMITS[name]
    head, _, body = (await place.say(text)).partition(b"\r\n\r\n")
    assert f" {status} ".encode() in head.partition(b"\r\n")[0]
    assert json.loads(body)["error"]["code"] in {"request_headers_too_large", "url_too_long"}


async def test_a_head_without_end_is_not_collected(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    with closing(writer):
        writer.write(HEAD.encode())
        for i in range(8):
            writer.write(f"x-{i}: {'y' * 9_000}\r\n".encode())
            await writer.drain()
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 431 ")


ASKED = {
    "head": None,
    "body": None,
    "queued": {"stream": True},
    "prefill": {"stream": True, "hold_bytes": 0},
    "streaming": {"stream": True, "hold_bytes": 700, "replay": "chat-stream"},
    "plain": {"hold_bytes": 300},
}


@pytest.mark.parametrize("phase", ASKED)
async def test_who_closes_his_side_has_left_in_every_phase(place: Place, phase: str) -> None:
    fields = ASKED[phase]
    body = json.dumps({"model": MODEL, "messages": []} | (fields or {})).encode()
    text = HEAD.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body
    text = {"head": text[:99], "body": text[:-9]}.get(phase, text)
    async with AsyncExitStack() as stack:
        edge = place.edge
        if phase == "queued":
            edge = await stack.enter_async_context(running_edge([place.engine.url], slots=0))
        port = int(edge.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            writer.write(text)
            if phase == "queued":
                await until(lambda: edge.dispatch.totals() == (0, 1))
            elif fields is not None:
                await until(lambda: len(place.engine.received) == 1)
            if phase == "streaming":
                await reader.readuntil(b"data: ")
            writer.write_eof()
            async with asyncio.timeout(20):
                await reader.read()
        await until(lambda: edge.dispatch.totals() == (0, 0))
        await until(lambda: place.engine.left == ("hold_bytes" in (fields or {})))


async def test_many_idle_connections_do_not_matter(place: Place) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = []
    for i in range(IDLE_CONNECTIONS):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        idle.append(writer)
        if i % 10 == 0:  # one in ten has asked before
            writer.write(SMUGGLED.encode())
            await reader.readuntil(b"}")
    assert b" 200 OK" in await place.say(HEAD + LENGTH + "\r\n" + BODY)
    for writer in idle:
        writer.close()


FRAGMENTS = (
    *(HEAD, LENGTH, CHUNKED, "\r\n", BODY, CHUNKS, SMUGGLED, "0\r\n\r\n", "content-length: 5\r\n"),
    *("expect: 100-continue\r\n", "content-encoding: gzip\r\n", "upgrade: websocket\r\n"),
    *(
        "connection: upgrade\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\n",
    ),
)
NOISE = st.sampled_from([part.encode() for part in FRAGMENTS]) | st.binary(max_size=12)


async def test_whatever_bytes_come_the_edge_answers_or_hangs_up(place: Place) -> None:
    port = place.port

    @settings(max_examples=150)
    @given(st.lists(NOISE, max_size=8), st.integers(0, 400))
    def fuzz(parts: list[bytes], cut: int) -> None:
        text = b"".join(parts)
        said = b""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            try:
                client.sendall(text[:cut])
                client.sendall(text[cut:])
                client.shutdown(socket.SHUT_WR)
                while more := client.recv(65_536):
                    said += more
            except TimeoutError:  # it may hang up at any moment, but not just be silent
                raise
            except OSError:
                pass
        assert said == b"" or said.startswith(b"HTTP/")
        assert b" 500 " not in said

    await asyncio.to_thread(fuzz)
    await until(lambda: place.edge.dispatch.totals() == (0, 0))
    assert all(received.body.decode() == BODY for received in place.engine.received)
    assert b" 200 OK" in await place.say(HEAD + LENGTH + "\r\n" + BODY)

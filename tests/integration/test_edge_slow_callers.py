"""Callers that send a bit at a time, on real sockets, with limits shortened."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from edge import answers, bodies, listening, upstream
from edge.config import from_args
from edge.http import connection
from edge.http.request import Request
from edge.http.response import Response
from edge.http.server import serving
from tests.fakes.edge import KEY, running_edge
from tests.fakes.wait import until

HEAD = (
    "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    f"authorization: Bearer {KEY}\r\ncontent-length: 1000\r\n\r\n"
)


async def answer(url: str, *parts: bytes) -> bytes:
    """What comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    for part in parts:
        writer.write(part)
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"}}")
    writer.close()
    return head + body


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: "])
async def test_a_head_has_its_time(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connection, "HEAD_LIMIT_S", 0.1)
    async with running_edge([]) as edge:
        said = await answer(edge.url, sent)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in said


def test_it_has_its_time_in_the_loop_that_edges_run_in_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_LIMIT_S", 0.1)

    async def trickle() -> bytes:
        async with running_edge([]) as edge:
            return await answer(edge.url, b"GET / HTTP/1.1\r\nhost: ")

    assert uvloop.run(trickle()).startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_has_asked_lives_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_LIMIT_S", 0.05)
    async with running_edge([]) as edge:
        port = int(edge.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
            await asyncio.sleep(0.05)
        writer.close()


async def test_a_later_head_has_the_time_of_an_idle_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE_S", 0.1)
    async with running_edge([]) as edge:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(edge.url.rpartition(":")[2])
        )
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTT")
        async with asyncio.timeout(20):
            assert (await reader.read()).count(b"HTTP/1.1 200") == 1
        writer.close()


@pytest.mark.parametrize("limit", ["BODY_IDLE_S", "BODY_TOTAL_S"])
async def test_a_body_has_its_time(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(bodies, limit, 0.1)
    async with running_edge([]) as edge:
        said = await answer(edge.url, HEAD.encode(), b'{"model"')
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in said.lower()
    assert b'"code":"request_timeout"' in said


def test_a_vanished_engine_host_is_noticed_by_tcp() -> None:
    with upstream._socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("", 0))) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10


async def _refuse(_request: Request) -> Response:
    return Response(404)


async def _kept_alive() -> list[int]:
    """What the system does for a connection that the edge has taken."""
    config = from_args(["--controlplane", "unix:/none", "--listen", "127.0.0.1:0"])
    async with (
        serving(_refuse, answers.refuse) as callers,
        await listening.public(callers, config, None) as taken,
    ):
        await taken.start_serving()
        _, writer = await asyncio.open_connection(*taken.sockets[0].getsockname())
        await until(lambda: len(callers.connections) == 1)
        [one] = callers.connections
        made = one._transport.get_extra_info("socket")
        said = [made.getsockopt(*option[:2]) for option in listening.SOCKET_OPTIONS]
        writer.close()
    return said


def test_a_vanished_callers_host_is_noticed_by_tcp() -> None:
    asked = [option[2] for option in listening.SOCKET_OPTIONS]
    assert asyncio.run(_kept_alive()) == asked
    assert uvloop.run(_kept_alive()) == asked

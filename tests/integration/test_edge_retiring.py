"""An edge that ends: who asked gets the answer, who asks nothing is let go, nobody is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.local_engine import LocalEngine, local_engine
from tests.fakes.wait import until
from trimtab.runtime.tasks import TaskRunner

LIMIT_S = 30.0
TEXT = {"model": MODEL, "prompt": "hi", "max_tokens": 40}
GET = f"GET /v1/models HTTP/1.1\r\nhost: e\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()


@dataclass(slots=True)
class Place:
    """An edge before one engine, and a way to ask."""

    edge: EdgeUnderTest
    engine: LocalEngine
    http: aiohttp.ClientSession


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with (
        local_engine() as engine,
        running_edge([engine.url]) as edge,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
    ):
        yield Place(edge, engine, http)


async def connection(edge: EdgeUnderTest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(edge.url.rsplit(":", 1)[1]))


@pytest.mark.parametrize("stream", [False, True])
async def test_who_has_asked_gets_the_whole_answer(place: Place, stream: bool) -> None:
    await place.engine.fault(slow=20)
    async with TaskRunner() as runner:
        url = f"{place.edge.url}/v1/completions"

        async def ask() -> None:
            async with place.http.post(url, json=TEXT | {"stream": stream}) as answer:
                said.append(await answer.read())

        said = list[bytes]()
        caller = runner.once("caller", ask())
        await until(lambda: place.engine.held == 1)
        await place.edge.callers.retire(LIMIT_S)
        await caller
    assert (b"[DONE]" in said[0]) is stream
    assert not place.edge.callers.connections


async def test_who_asks_nothing_is_let_go_at_once(place: Place) -> None:
    reader, writer = await connection(place.edge)
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    await place.edge.callers.retire(LIMIT_S)
    await reader.read()
    assert reader.at_eof()
    writer.close()


async def test_a_request_that_is_on_its_way_is_answered_and_the_last_one(place: Place) -> None:
    reader, writer = await connection(place.edge)
    await until(lambda: bool(place.edge.callers.connections))
    async with TaskRunner() as runner:
        retiring = runner.once("retire", place.edge.callers.retire(LIMIT_S))
        await until(lambda: place.edge.callers.retiring)
        place.edge.endpoint.draining = True
        writer.write(GET)
        said = await reader.read()
        await retiring
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in said
    writer.close()


async def test_patience_has_an_end(place: Place) -> None:
    await place.engine.fault(freeze=True)
    async with TaskRunner() as runner:
        url = f"{place.edge.url}/v1/completions"

        async def ask() -> None:
            async with place.http.post(url, json=TEXT):
                pass

        caller = runner.once("caller", ask())
        await until(lambda: place.engine.held == 1)
        await place.edge.callers.retire(0.05)
        assert place.edge.callers.connections
        caller.cancel()

"""Realtime sessions through the edge: who is let in, what passes, and how they end."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestServer

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.wait import until
from trimtab.model import ApiKey, EdgePolicy, Outcome, Pool, Serving

SOUND = bytes(range(256)) * 20
Socket = aiohttp.ClientWebSocketResponse


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[SimEngine]:
    async with sim_engine("--speed", "20", "--lora-modules", "sql=/x") as running:
        yield running


@pytest.fixture
async def edge(engine: SimEngine) -> AsyncIterator[EdgeUnderTest]:
    async with running_edge([engine.url]) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        yield session


def url(edge: EdgeUnderTest, model: str = "") -> str:
    return f"{edge.url}/v1/realtime" + (f"?model={model}" if model else "")


async def heard(socket: Socket) -> dict[str, Any]:
    event: dict[str, Any] = await socket.receive_json(timeout=10)
    return event


async def transcribed(socket: Socket) -> str:
    """The text of SOUND."""
    await socket.send_json(
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(SOUND).decode()}
    )
    await socket.send_json({"type": "input_audio_buffer.commit", "final": True})
    parts = []
    while (event := await heard(socket))["type"] == "transcription.delta":
        parts.append(event["delta"])
    assert event["type"] == "transcription.done", event
    assert "".join(parts) == event["text"]
    return str(event["text"])


async def test_a_session(http: aiohttp.ClientSession, edge: EdgeUnderTest) -> None:
    async with http.ws_connect(url(edge, "alias"), protocols=("realtime",)) as socket:
        assert socket.protocol == "realtime"
        assert (await heard(socket))["type"] == "session.created"
        assert edge.inflight("r0") == 1
        await socket.send_json({"type": "session.update", "model": "alias"})
        mark = hashlib.sha256(SOUND).hexdigest()[:16]
        for _ in range(2):
            assert (await transcribed(socket)).startswith(mark)
        await socket.send_json({"type": "session.update", "model": "sql"})
        assert (await heard(socket))["code"] == "invalid_value"
        await socket.send_str("{")
        assert (await heard(socket))["code"] == "invalid_json"
        assert (await transcribed(socket)).startswith(mark)
        await socket.close()
        assert socket.close_code == 1000
    await until(lambda: edge.inflight("r0") == 0)
    assert edge.dispatch.replica("r0").outcomes[Outcome.OK] == 1


async def test_the_model_may_be_said_in_the_first_frame(
    http: aiohttp.ClientSession, edge: EdgeUnderTest
) -> None:
    edge.push(replace(edge.snapshot, pools=(*edge.snapshot.pools, Pool("other"))))
    async with http.ws_connect(url(edge)) as socket:
        assert (await heard(socket))["type"] == "session.created"
        assert edge.inflight("r0") == 0
        await socket.send_json({"type": "session.update", "model": "alias"})
        assert await transcribed(socket), "no second session.created came before it"
    for first, code in (
        ({"type": "session.update", "model": "nope"}, "model_not_found"),
        ({"type": "input_audio_buffer.commit"}, "missing_required_parameter"),
        ({"type": "session.update", "model": "other"}, "no_replica_available"),
    ):
        async with http.ws_connect(url(edge)) as socket:
            await heard(socket)
            await socket.send_json(first)
            assert (await heard(socket))["code"] == code
            assert (await socket.receive(timeout=10)).type is WSMsgType.CLOSE
            assert socket.close_code == (1013 if code == "no_replica_available" else 1008)


async def test_refusals_have_a_status(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, engine: SimEngine
) -> None:
    async def status(model: str, key: str = KEY) -> int:
        headers = {"authorization": f"Bearer {key}"}
        with pytest.raises(WSServerHandshakeError) as refused:
            await http.ws_connect(url(edge, model), headers=headers)
        return refused.value.status

    assert await status(MODEL, key="sk-nobodys") == 401
    assert await status("nope") == 404
    scoped = replace(edge.snapshot.keys[0], models=("sql",))
    edge.push(replace(edge.snapshot, keys=(scoped,)))
    assert await status(MODEL) == 404
    edge.push(replace(edge.snapshot, keys=(ApiKey(scoped.sha256, "test"),)))
    edge.set_serving("r0", Serving.CLOSED)
    assert await status(MODEL) == 503
    async with http.get(url(edge, MODEL)) as answer:
        assert answer.status == 426
        assert (await answer.json())["error"]["code"] == "upgrade_required"


@pytest.mark.parametrize("status", [403, 404])
async def test_an_engine_without_realtime_says_so(http: aiohttp.ClientSession, status: int) -> None:
    async def deny(_: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/{path:.*}", deny)
    async with (
        TestServer(app) as denies,
        running_edge([str(denies.make_url("")).rstrip("/")]) as edge,
    ):
        with pytest.raises(WSServerHandshakeError) as refused:
            await http.ws_connect(url(edge, MODEL))
        assert refused.value.status == 400
        assert edge.dispatch.replica("r0").outcomes == {Outcome.CLIENT: 1}


async def test_another_replica_is_tried_before_it_stands(
    http: aiohttp.ClientSession, engine: SimEngine
) -> None:
    async with running_edge(["http://127.0.0.1:9", engine.url]) as edge:
        while not edge.dispatch.replica("r0").outcomes:
            async with http.ws_connect(url(edge, MODEL)) as socket:
                assert (await heard(socket))["type"] == "session.created"


async def test_a_replica_that_is_lost_ends_it_with_an_error(
    http: aiohttp.ClientSession, edge: EdgeUnderTest
) -> None:
    async with http.ws_connect(url(edge, MODEL)) as socket:
        await heard(socket)
        edge.set_serving("r0", Serving.LOST)
        assert (await heard(socket))["code"] == "replica_lost"
        assert (await socket.receive(timeout=10)).type is WSMsgType.CLOSE
        assert socket.close_code == 1011
    await until(lambda: edge.inflight("r0") == 0)


async def test_an_engine_that_dies_ends_it_with_an_error(http: aiohttp.ClientSession) -> None:
    async with (
        sim_engine() as mortal,
        running_edge([mortal.url]) as edge,
        http.ws_connect(url(edge, MODEL)) as socket,
    ):
        await heard(socket)
        mortal.process.kill()
        assert (await heard(socket))["code"] == "replica_lost"
        await until(lambda: edge.inflight("r0") == 0)


async def test_silence_ends_it(http: aiohttp.ClientSession, engine: SimEngine) -> None:
    policy = EdgePolicy(idle_timeout_ms=200)
    async with running_edge([engine.url], policy=policy) as edge:
        async with http.ws_connect(url(edge, MODEL)) as socket:
            await heard(socket)
            assert (await heard(socket))["code"] == "session_expired"
            assert (await socket.receive(timeout=10)).type is WSMsgType.CLOSE
        await until(lambda: edge.inflight("r0") == 0)


async def test_a_caller_who_vanishes_frees_the_slot(
    http: aiohttp.ClientSession, edge: EdgeUnderTest
) -> None:
    socket = await http.ws_connect(url(edge, MODEL))
    await heard(socket)
    assert edge.inflight("r0") == 1
    await http.close()
    await until(lambda: edge.inflight("r0") == 0)


async def test_an_edge_that_goes_says_goodbye(
    http: aiohttp.ClientSession, edge: EdgeUnderTest
) -> None:
    async with http.ws_connect(url(edge, MODEL)) as socket:
        await heard(socket)
        edge.endpoint.draining = True
        await edge.proxy.tunnels.close()
        assert (await socket.receive(timeout=10)).type is WSMsgType.CLOSE
        assert socket.close_code == 1001
    await until(lambda: edge.inflight("r0") == 0)

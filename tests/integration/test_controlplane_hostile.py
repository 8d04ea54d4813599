"""Hostile and clumsy peers over real gRPC: refused and counted; the others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest

from controlplane.core import bounds
from tests.fakes.peers import facts, fake_agent, fake_edge, sample
from tests.fakes.running_control_plane import admin, config, running
from tests.fakes.wait import until
from trimtab.codec import encode_body
from trimtab.model import Ack, EdgeHello, Report, Serving
from trimtab.runtime import rpc
from trimtab.v1 import admin_pb2, agent_pb2, agent_pb2_grpc, edge_pb2, edge_pb2_grpc

with socket.create_server(("127.0.0.1", 0)) as _free:
    METRICS = f"127.0.0.1:{_free.getsockname()[1]}"


@pytest.fixture
async def target(tmp_path: pathlib.Path) -> AsyncIterator[str]:
    async with running(config(tmp_path, metrics=METRICS)) as running_target:
        yield running_target


async def scraped() -> dict[str, float]:
    """What /metrics says."""
    async with aiohttp.ClientSession() as http, http.get(f"http://{METRICS}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("trimtab_controlplane_"): float(value) for name, value in pairs}


async def refused(kind: str, least: int = 1) -> None:
    """Wait until so many of a kind were."""
    async with asyncio.timeout(20):
        while (await scraped())[f'refused_total{{kind="{kind}"}}'] < least:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def raw(target: str, service: str) -> AsyncIterator[Any]:
    """A stream without a hello; it may send anything that its channel lets out."""
    async with rpc.channel(target) as channel:
        stubs: dict[str, Any] = {
            "agent": agent_pb2_grpc.AgentServiceStub(channel).Report,
            "edge": edge_pb2_grpc.EdgeServiceStub(channel).Watch,
        }
        call = stubs[service](wait_for_ready=True)
        yield call
        call.cancel()


async def test_an_honest_fleet_beside_a_hostile_agent(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with fake_edge(target) as edge, fake_agent(target) as agent:
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        async with fake_agent(target, "evil") as evil:
            for number in range(200):
                await evil.say(facts(f"x{number}"))
            for _ in range(100):
                await evil.say(facts("r1", url="http://evil:1"))
                await evil.report(sample("r1", epoch=666))
            nan = agent_pb2.AgentMessage()
            nan.report.engines.add(replica="r1", kv_cache_usage_ratio=float("nan"))
            await evil.call.write(nan)
            big = Report(10**6, (sample("x1", reason="x" * 2 * 1024 * 1024),))
            await evil.say(big)
            await refused("claim", 200)
            await refused("full", 200 - bounds.PER_NODE_LIMIT)
            await refused("message")
            await refused("size")
        assert edge.serving("r1") is Serving.OPEN
        assert edge.error is None
        seen = await scraped()
    assert sum(seen[f'replicas{{serving="{s}"}}'] for s in ("open", "closed", "lost")) == 65
    assert (seen["term"], seen["leader"]) == (1, 1)
    told = [r for r in caplog.records if r.getMessage() == "refused"]
    assert len(told) == len({(f["peer"], f["kind"]) for r in told if (f := vars(r)["fields"])})


async def test_a_message_of_100_mb_ends_its_stream_and_nothing_else(target: str) -> None:
    async with fake_agent(target, "evil") as evil, fake_edge(target) as edge:
        message = agent_pb2.AgentMessage()
        message.report.gpu_detail = "x" * 100 * 1024 * 1024
        await evil.call.write(message)
        await until(lambda: evil.error is not None)
        assert evil.error is not None
        assert evil.error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with admin(target) as stub:
            answer = await stub.GetFleet(admin_pb2.GetFleetRequest())
        assert [known.edge for known in answer.fleet.edges] == ["e1"]
        assert edge.error is None


async def test_a_flood_is_read_slowly_and_the_rest_go_on(target: str) -> None:
    async with fake_agent(target, "evil") as evil, fake_edge(target) as edge:
        for _ in range(1000):
            await evil.report()
        await refused("flood")
        async with fake_agent(target) as agent:
            await agent.serve("r1")
            await edge.until_serving("r1", Serving.OPEN)


async def test_edges_that_lie(target: str) -> None:
    async with fake_edge(target) as honest, fake_agent(target) as agent:
        await agent.serve("r1")
        await honest.until_serving("r1", Serving.OPEN)
        async with fake_edge(target, hello=EdgeHello("mad", term=2**63)) as mad:
            await until(lambda: mad.error is not None)
            assert mad.updates == []
        async with fake_edge(target, "odd") as odd:
            for nonce in range(1, 100):
                await odd.call.write(
                    encode_body(edge_pb2.EdgeMessage, Ack(10**6 + nonce, "\x1b[2J" * 1000))
                )
            await refused("nonce", 99)
        async with fake_edge(target, "e1", EdgeHello("e1", instance="another")) as twin:
            await until(lambda: twin.error is not None)
            assert twin.updates == []
        await refused("name")
        assert honest.error is None
        assert (await scraped())["term"] == 1


@pytest.mark.parametrize("service", ["agent", "edge"])
async def test_who_says_no_hello_is_told_so(target: str, service: str) -> None:
    report = Report(1) if service == "agent" else None
    async with raw(target, service) as call:
        if report is not None:
            await call.write(encode_body(agent_pb2.AgentMessage, report))
        else:
            message = edge_pb2.EdgeMessage()
            message.edge_report.seq = 1
            await call.write(message)
        with pytest.raises(grpc.aio.AioRpcError, match="first message must be"):
            await call.read()
    await refused("order")


async def test_a_crowd_that_reads_nothing_is_held_in_bounds(target: str) -> None:
    async with contextlib.AsyncExitStack() as stack, fake_edge(target) as edge:
        for _ in range(300):
            await stack.enter_async_context(raw(target, "agent"))
        async with fake_agent(target) as agent:
            await agent.serve("r1")
            await edge.until_serving("r1", Serving.OPEN)

"""KEDA asks a real control plane, over gRPC, as KEDA does."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from controlplane.seat import Seat
from controlplane.service_scaler import NAME, ScalerService, register
from tests.fakes.keda import Keda
from tests.fakes.leading import SETTINGS
from tests.fakes.peers import FakeAgent, FakeEdge, facts, fake_agent, fake_edge, sample
from tests.fakes.running_control_plane import config, running
from tests.fakes.store import FakeStore
from trimtab.model import HistogramDelta, PoolUse, ReplicaUse, Serving
from trimtab.runtime import rpc

MODEL = {"model": "m", "firstTokenSeconds": "5"}


@asynccontextmanager
async def asked(target: str, **metadata: str) -> AsyncIterator[Keda]:
    async with rpc.channel(target) as channel:
        yield Keda(channel, metadata or MODEL)


@pytest.fixture
async def fleet(tmp_path: pathlib.Path) -> AsyncIterator[tuple[str, FakeAgent, FakeEdge]]:
    """Two replicas of 100 slots each, which nobody uses."""
    async with (
        running(config(tmp_path)) as target,
        fake_agent(target) as agent,
        fake_edge(target) as edge,
    ):
        for name in ("r1", "r2"):
            await agent.say(facts(name, max_num_seqs=96))
        await agent.report(sample("r1"), sample("r2"))
        await edge.until_serving("r2", Serving.OPEN)
        yield target, agent, edge


async def until_wanted(keda: Keda, replicas: int, current: int = 2) -> None:
    async with asyncio.timeout(20):
        while await keda.replicas(current) != replicas:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)


async def test_as_keda_asks(fleet: tuple[str, FakeAgent, FakeEdge]) -> None:
    target, agent, edge = fleet
    async with asked(target) as keda:
        assert await keda.targets() == {"s0-queue": 1.0, "s0-first-token": 1.0}
        assert await keda.metric("s0-queue") == (0.0, False)
        busy = (ReplicaUse("r1", 100, 100), ReplicaUse("r2", 100, 100))
        await edge.report(busy, (PoolUse("m", queued=40, requests=240),))
        await until_wanted(keda, 3)
        assert await keda.metric("s0-queue") == (3.0, True)
        assert await keda.metric("s0-first-token") == (1.0, True)
        late = HistogramDelta((7.5,), (20,), 140.0)
        await agent.report(sample("r1", ttft=late), sample("r2"))
        await until_wanted(keda, 3)
        assert (await keda.metric("s0-first-token"))[0] == 3.0


async def test_it_is_told_when_somebody_asks(fleet: tuple[str, FakeAgent, FakeEdge]) -> None:
    target, _, edge = fleet
    async with asked(target) as keda, asyncio.timeout(20):
        activity = keda.activity()
        assert await anext(activity) is False
        await edge.report((), (PoolUse("m", requests=1),))
        assert await anext(activity) is True


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"model": "n"}, "metadata.model is 'n'; the fleet's models are: m"),
        ({"modle": "m"}, "metadata.model is ''; the fleet's models are: m"),
        ({"model": "m", "firstTokenSeconds": "5s"}, "metadata.firstTokenSeconds is '5s': give"),
        ({"model": "m", "firstTokenSeconds": "nan"}, "metadata.firstTokenSeconds is 'nan': give"),
    ],
)
async def test_a_mistake_is_named(
    fleet: tuple[str, FakeAgent, FakeEdge], metadata: dict[str, str], said: str
) -> None:
    async with asked(fleet[0], **metadata) as keda:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await keda.targets()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in str(refused.value.details())


async def test_any_control_plane_may_be_asked(
    fleet: tuple[str, FakeAgent, FakeEdge], tmp_path: pathlib.Path
) -> None:
    seat, follower = Seat(SETTINGS, FakeStore()), f"unix:{tmp_path}/follower.sock"
    seat.leave(fleet[0])
    served = ScalerService(seat)
    server = await rpc.serve(follower, [NAME], lambda server: register(served, server))
    try:
        async with asked(follower) as keda, asyncio.timeout(20):
            assert await keda.targets() == {"s0-queue": 1.0, "s0-first-token": 1.0}
            assert await keda.metric("s0-queue") == (0.0, False)
            assert await anext(keda.activity()) is False
            seat.leave(follower)  # each believes of the other that it leads
            with pytest.raises(grpc.aio.AioRpcError, match="the leader is"):
                await keda.targets()
    finally:
        await server.stop(0)


async def test_no_such_metric(fleet: tuple[str, FakeAgent, FakeEdge]) -> None:
    async with asked(fleet[0]) as keda:
        with pytest.raises(grpc.aio.AioRpcError, match="there are queue, first-token"):
            await keda.metric("s0-latency")

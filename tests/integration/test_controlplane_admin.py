"""What ctl asks: reads, watches and intents, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controlplane.core.placement import EngineSpec
from tests.fakes.peers import facts, fake_agent, fake_edge, sample
from tests.fakes.running_control_plane import admin, config, running
from tests.fakes.wait import until
from trimtab.codec import decode
from trimtab.model import (
    HistogramDelta,
    Intent,
    Outcome,
    OutcomeCount,
    PoolUse,
    ReplicaUse,
    Serving,
)
from trimtab.runtime import rpc
from trimtab.v1 import admin_pb2, admin_pb2_grpc, types_pb2
from trimtab.views import Explanation, Fleet

DEADLINE_S = 30.0


@pytest.fixture
async def target(tmp_path: pathlib.Path) -> AsyncIterator[str]:
    engines = (EngineSpec("planned", "http://127.0.0.1:9", "m"),)
    async with running(config(tmp_path, engines=engines)) as address:
        yield address


async def fleet_of(stub: admin_pb2_grpc.AdminServiceStub) -> Fleet:
    return decode((await stub.GetFleet(admin_pb2.GetFleetRequest())).fleet, Fleet)


async def test_the_whole_fleet_at_a_glance(target: str) -> None:
    async with (
        fake_agent(target) as agent,
        fake_edge(target) as edge,
        admin(target) as stub,
    ):
        await agent.say(facts("r1", vllm_version="0.32.0", uptime_ms=5_000))
        await agent.report(sample(generation_tokens_total=100))
        ttft = HistogramDelta((0.25,), (4,), 1.0)
        await agent.report(sample(generation_tokens_total=400, running=3, ttft=ttft))
        await edge.until_serving("r1", Serving.OPEN)
        outcomes = (OutcomeCount(Outcome.HARD, 2), OutcomeCount(Outcome.OVERLOAD, 5))
        await edge.report(
            [ReplicaUse("r1", inflight=3, dispatched=10, outcomes=outcomes), ReplicaUse("r9")],
            [PoolUse("m", queued=7, requests=12, shed=1)],
        )
        async with asyncio.timeout(DEADLINE_S):
            while not (fleet := await fleet_of(stub)).edges[0].requests_1m:
                pass

    assert (fleet.name, fleet.leader, fleet.term) == ("test", "cp1", 1)
    planned, replica = fleet.replicas
    assert (planned.route.replica, planned.route.reason) == ("planned", "no report yet")
    assert planned.report_age_ms is None
    assert replica.route.serving is Serving.OPEN
    # 16 and 4 to keep it busy, less a twentieth because it refused
    assert (replica.limit_slots, replica.max_num_seqs, replica.weight) == (19, 16, 1.0)
    assert (replica.running, replica.inflight, replica.share_ratio) == (3, 3, 1.0)
    assert (replica.failures_1m, replica.overloads_1m) == (2, 5)
    assert replica.ttft_p50_s == pytest.approx(0.175)
    assert (replica.vllm_version, replica.report_age_ms is not None) == ("0.32.0", True)
    assert replica.uptime_ms is not None
    assert replica.uptime_ms >= 5_000
    (view,) = fleet.edges
    assert (view.edge, view.inflight, view.queued, view.shed_1m) == ("e1", 3, 7, 1)
    assert 0 < view.acked_version <= view.sent_version <= fleet.version
    (agent_view,) = fleet.agents
    assert (agent_view.node, agent_view.connected) == ("n1", True)
    (pool,) = fleet.pools
    assert (pool.pool, pool.replicas, pool.open, pool.open_slots) == ("m", 2, 1, 19)
    assert (pool.requests_1m, pool.shed_1m, pool.queued, pool.inflight) == (12, 1, 7, 3)


async def test_a_watch_shows_what_changes(target: str) -> None:
    async with admin(target) as stub, fake_agent(target) as agent:
        watch = stub.WatchFleet(admin_pb2.WatchFleetRequest(period_ms=200))
        names: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            async for answer in watch:
                names = [view.route.replica for view in answer.fleet.replicas]
                if "r1" in names:
                    break
                await agent.serve("r1")
        watch.cancel()
    assert names == ["planned", "r1"]


async def test_watchers_are_limited(target: str) -> None:
    request = admin_pb2.WatchFleetRequest()
    async with admin(target) as stub, contextlib.AsyncExitStack() as stack:
        for _ in range(32):
            watch = stub.WatchFleet(request)
            stack.callback(watch.cancel)
            await anext(aiter(watch))
        with pytest.raises(grpc.aio.AioRpcError, match="32 others"):
            await anext(aiter(stub.WatchFleet(request)))


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        (
            {"replica": "plan", "intent": Intent.CORDONED, "actor": "ada"},
            grpc.StatusCode.NOT_FOUND,
            "there is no replica 'plan'; did you mean planned?",
        ),
        (
            {"replica": "planned", "actor": "ada"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "intent must be one of ACTIVE, CORDONED, DRAINING, SPARE",
        ),
        (
            {"replica": "planned", "intent": Intent.CORDONED},
            grpc.StatusCode.INVALID_ARGUMENT,
            "actor must say who asks",
        ),
    ],
)
async def test_an_intent_that_cannot_be_is_explained(
    target: str, fields: dict[str, Any], code: grpc.StatusCode, text: str
) -> None:
    async with admin(target) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SetIntent(admin_pb2.SetIntentRequest(**fields))
    assert (caught.value.code(), caught.value.details()) == (code, text)


async def test_an_intent_is_seen_at_once_and_undone(target: str) -> None:
    async with admin(target) as stub, fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        for intent, before, serving in (
            (Intent.SPARE, Intent.ACTIVE, Serving.CLOSED),
            (Intent.ACTIVE, Intent.SPARE, Serving.OPEN),
        ):
            fields: dict[str, Any] = {"replica": "r1", "intent": intent, "actor": "ada"}
            answer = await stub.SetIntent(admin_pb2.SetIntentRequest(**fields))
            assert Intent(answer.previous) is before
            await edge.until_serving("r1", serving)
        await until(lambda: edge.slots("r1") == 20)


async def test_health_is_served(target: str) -> None:
    async with rpc.channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="trimtab.v1.EdgeService"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_why_a_replica_gets_nothing_and_what_happened(target: str) -> None:
    async with (
        fake_agent(target) as agent,
        fake_edge(target) as edge,
        admin(target) as stub,
    ):
        follow = stub.WatchEvents(admin_pb2.WatchEventsRequest(about="r1", follow=True))
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        wish = admin_pb2.SetIntentRequest(
            replica="r1", intent=types_pb2.INTENT_CORDONED, reason="fan", actor="ada"
        )
        await stub.SetIntent(wish)
        answer = await stub.ExplainReplica(admin_pb2.ExplainReplicaRequest(replica="r1"))
        found = decode(answer.explanation, Explanation)
        assert found.headline.startswith("r1 gets no new requests: intent cordoned by ada")
        assert not found.in_rotation
        told = [(event.what, event.text) for event in found.events]
        assert told[-2:] == [
            ("intent set", "intent CORDONED, reason fan, actor ada"),
            ("serving", "OPEN -> CLOSED: cordoned by ada: fan; engine READY"),
        ]
        seen: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(seen) < len(found.events):
                part = await follow.read()
                assert isinstance(part, admin_pb2.WatchEventsResponse)
                seen += [event.what for event in part.events]
        assert seen == [what for what, _ in told]
        follow.cancel()
        newest = [
            event
            async for part in stub.WatchEvents(admin_pb2.WatchEventsRequest(limit=2))
            for event in part.events
        ]
        assert [event.what for event in newest] == ["intent set", "serving"]


async def test_nobody_can_explain_a_replica_that_is_not_there(target: str) -> None:
    async with admin(target) as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="did you mean planned") as error:
            await stub.ExplainReplica(admin_pb2.ExplainReplicaRequest(replica="planed"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND

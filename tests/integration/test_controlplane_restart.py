"""A control plane that restarts, or loses its store, takes nothing away from anybody."""

from __future__ import annotations

import pathlib
from contextlib import AsyncExitStack

import grpc

from controlplane.core.placement import EngineSpec
from tests.fakes.peers import fake_agent, fake_edge, sample
from tests.fakes.running_control_plane import admin, config, running
from tests.fakes.wait import until
from trimtab.model import (
    Cohort,
    EdgeHello,
    EngineState,
    Intent,
    Outcome,
    OutcomeCount,
    Pool,
    ReplicaUse,
    Serving,
)
from trimtab.v1 import admin_pb2, types_pb2


async def test_peers_are_told_that_it_stops(tmp_path: pathlib.Path) -> None:
    async with AsyncExitStack() as stack:
        async with running(config(tmp_path)) as target:
            edge = await stack.enter_async_context(fake_edge(target))
            agent = await stack.enter_async_context(fake_agent(target))
            await agent.serve("r1")
            await edge.until_serving("r1", Serving.OPEN)
        await until(lambda: edge.error is not None and agent.error is not None)
        for error in (edge.error, agent.error):
            assert error is not None
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.details() == "the control plane is stopping"


async def test_a_restart_has_a_higher_term_and_keeps_every_route(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path)
    async with running(settings) as target, fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1", "r2")
        await edge.until_serving("r2", Serving.OPEN)
        await until(lambda: edge.slots("r2") > 0)
    before = edge.updates[-1]

    async with running(settings) as target:
        hello = EdgeHello("e1", instance="e1", term=before.term, version=before.version)
        async with fake_edge(target, hello=hello) as returned:
            await until(lambda: bool(returned.credits.credits))
            # Nobody has reported: what is stored stands.
            assert returned.serving("r1") is Serving.OPEN
            assert returned.slots("r1") == 20
            assert "before the restart" in returned.reason("r1")
            assert returned.updates[0].term > before.term

            async with fake_agent(target) as agent:
                await agent.serve("r1")
                await until(lambda: "READY" in returned.reason("r1"))
            assert returned.serving("r2") is Serving.OPEN


async def test_what_was_lost_stays_lost_over_a_restart(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path)
    async with running(settings) as target, fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1", "r2")
        await edge.until_serving("r1", Serving.OPEN)
        await agent.report(sample("r1", EngineState.DEAD))
        await edge.until_serving("r1", Serving.LOST)

    async with running(settings) as target, fake_edge(target) as edge:
        await edge.until_serving("r1", Serving.LOST)
        assert edge.serving("r2") is Serving.OPEN


async def test_an_ejection_outlives_a_restart(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path)
    failed = Cohort(0, 10, (OutcomeCount(Outcome.SOFT, 10),))
    async with running(settings) as target, fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1", "r2")
        await edge.until_serving("r2", Serving.OPEN)
        await edge.report([ReplicaUse("r1", cohorts=(failed,))])
        await edge.until_serving("r1", Serving.CLOSED)

    async with running(settings) as target, fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1", "r2")
        await edge.until_serving("r2", Serving.OPEN)
        await until(lambda: "it fails nearly every request" in edge.reason("r1"))
        assert edge.serving("r1") is Serving.CLOSED


async def test_an_edge_with_a_routing_hears_nothing_before_the_agents_do(
    tmp_path: pathlib.Path,
) -> None:
    settings = config(tmp_path, pools=(Pool("m"),), engines=(EngineSpec("r1", "http://h:1", "m"),))
    async with running(settings) as target:
        async with (
            fake_edge(target, "new") as new,
            fake_edge(target, hello=EdgeHello("old", term=1, version=1)) as old,
        ):
            await until(lambda: bool(new.updates))
            assert new.serving("r1") is Serving.CLOSED
            assert not old.updates
            async with fake_agent(target) as agent:
                await agent.serve("r1")
                await old.until_serving("r1", Serving.OPEN)
        assert all(route.serving is Serving.OPEN for route in old.snapshot.routes)


async def test_a_lost_store_goes_on_above_what_edges_have_seen(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path)
    async with running(settings) as target:
        async with fake_edge(target, hello=EdgeHello("e1", term=41, version=7)) as edge:
            await until(lambda: bool(edge.updates))
        assert edge.updates[0].term == 42
    async with running(settings) as target, fake_edge(target) as edge:
        await until(lambda: bool(edge.updates))
        assert edge.updates[0].term == 43


async def test_an_intent_outlives_a_restart(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path)
    async with running(settings) as target, fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        async with admin(target) as stub:
            cordoned = types_pb2.Intent.ValueType(Intent.CORDONED)
            request = admin_pb2.SetIntentRequest(
                replica="r1", intent=cordoned, reason="fan", actor="ada"
            )
            answer = await stub.SetIntent(request)
        assert answer.revision > 0
        await edge.until_serving("r1", Serving.CLOSED)
        assert edge.reason("r1").startswith("cordoned by ada: fan")
        await until(lambda: edge.slots("r1") == 0)

    async with running(settings) as target, fake_edge(target) as edge:
        await edge.until_serving("r1", Serving.CLOSED)
        assert "cordoned by ada: fan" in edge.reason("r1")
        async with admin(target) as stub:
            fleet = (await stub.GetFleet(admin_pb2.GetFleetRequest())).fleet
        assert Intent(fleet.replicas[0].intent) is Intent.CORDONED

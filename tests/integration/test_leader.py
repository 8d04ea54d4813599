"""Three control planes on one store: one leads, another follows, and nobody outside notices."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import aiohttp
import grpc
import pytest

from agent.config import AgentConfig, EngineConfig
from agent.main import serve_until as serve_agent
from agent.uplink import Uplink
from controlplane.main import serve_until
from ctl.client import Client, Frame
from ctl.exits import CtlError, Exit
from ctl.steer import Steer
from edge import main as edge_main
from edge.admission import Admission
from edge.config import EdgeConfig
from edge.core.dispatch import Dispatch
from edge.core.table import RoutingTable
from edge.feed import Feed
from edge.metrics import EdgeMetrics
from tests.e2e.starter import free_address
from tests.fakes.cluster import Cluster, cluster
from tests.fakes.engines import sim_engine
from tests.fakes.peers import facts, fake_edge, sample
from tests.fakes.running_control_plane import admin, config
from tests.fakes.store import FakeStore
from tests.fakes.wait import until
from trimtab.model import AgentDirective, AgentMessage, Intent, NodeHello, Report, Serving
from trimtab.runtime import service
from trimtab.runtime.service import ConfigError
from trimtab.runtime.targets import LEADER_METADATA
from trimtab.runtime.tasks import TaskRunner
from trimtab.steered import Order, Override, OverrideKind, fault
from trimtab.v1 import admin_pb2


class Node:
    """What a node with one READY engine says."""

    def __init__(self, name: str, replica: str) -> None:
        self._name, self._replica = name, replica

    def opening(self) -> list[AgentMessage]:
        return [NodeHello(self._name, "0", self._name), facts(self._replica)]

    def report(self) -> Report:
        return Report(1, (sample(self._replica),))

    def take(self, directive: AgentDirective) -> None:
        pass


@asynccontextmanager
async def agent(targets: str, node: str, replica: str) -> AsyncIterator[None]:
    """A real uplink of a node with one engine."""
    uplink = Uplink(targets, random.Random(1))

    async def report_forever() -> None:
        while True:
            uplink.report_due()
            await asyncio.sleep(0.1)

    async with TaskRunner() as runner:
        runner.forever("uplink", uplink.run(Node(node, replica)))
        runner.forever("reports", report_forever())
        yield


@asynccontextmanager
async def edge(targets: str) -> AsyncIterator[tuple[Feed, RoutingTable]]:
    """A real feed with its table."""
    table = RoutingTable()
    dispatch = Dispatch(table, random.Random(0))
    settings = EdgeConfig("e1", "127.0.0.1", 1, "127.0.0.1", 2, targets, None)
    feed = Feed(settings, table, dispatch, Admission(table, dispatch), EdgeMetrics())
    async with TaskRunner() as runner:
        runner.forever("feed", feed.run())
        yield feed, table


def open_replicas(table: RoutingTable) -> set[str]:
    """What an edge may use."""
    routes = table.snapshot.routes if table.ready else ()
    return {route.replica for route in routes if route.serving is Serving.OPEN}


@pytest.fixture
async def fleet(tmp_path: pathlib.Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as running:
        yield running


@pytest.mark.parametrize("way", ["in order", "killed", "cut off from the store"])
async def test_another_leads_and_peers_find_it(fleet: Cluster, way: str) -> None:
    async with agent(fleet.targets, "n1", "r1"), edge(fleet.targets) as (feed, table):
        await until(lambda: open_replicas(table) == {"r1"})
        old, term = await fleet.leader(), table.term
        if way == "in order":
            await old.end()
        elif way == "killed":
            await old.kill()
        else:
            old.link.cut = True
        new = await fleet.leader(other_than=old)
        await until(lambda: table.term > term and feed.connected)
        assert open_replicas(table) == {"r1"}
        seen = await fleet.fleet(new)
        assert (seen.leader, seen.term) == (new.name, table.term)
        assert [view.node for view in seen.agents if view.connected] == ["n1"]


async def test_a_new_leader_takes_nothing_away_before_it_has_heard(fleet: Cluster) -> None:
    async with edge(fleet.targets) as (_, table):
        async with agent(fleet.targets, "n1", "r1"), agent(fleet.targets, "n2", "r2"):
            await until(lambda: open_replicas(table) == {"r1", "r2"})
            old = await fleet.leader()
            term = table.term
        await old.kill()
        async with agent(fleet.targets, "n1", "r1"):
            await until(lambda: table.term > term)
            assert open_replicas(table) == {"r1", "r2"}, "nobody has spoken against r2"


async def test_a_wish_outlives_its_leader(fleet: Cluster) -> None:
    async with agent(fleet.targets, "n1", "r1"), edge(fleet.targets) as (_, table):
        await until(lambda: open_replicas(table) == {"r1"})
        steer = Steer(Client(fleet.targets))
        await steer.set_intents(["r1"], Intent.CORDONED, Order("ada", "fan", outage_ok=True))
        await steer.set_override(Override(OverrideKind.PAUSE), 60_000, Order("ada"))
        await until(lambda: open_replicas(table) == set())
        old, term = await fleet.leader(), table.term
        await old.kill()
        await until(lambda: table.term > term)
        assert open_replicas(table) == set()
        (route,) = table.snapshot.routes
        assert "cordoned by ada: fan" in route.reason
        assert [one.kind for one in (await Client(fleet.targets).fleet()).overrides] == [
            OverrideKind.PAUSE
        ]
        entries, newest = await Steer(Client(fleet.targets)).audit(0, "ada")
        assert [one.action for one in entries] == ["intent", "automation"]
        assert newest is not None
        assert fault(entries, newest) == ""


async def test_whoever_shares_a_store_must_be_found(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path, listen="0.0.0.0:0")
    with pytest.raises(ConfigError, match=r"others can't reach us at 0\.0\.0\.0:0"):
        await serve_until(asyncio.Event(), settings, FakeStore())


async def test_who_does_not_lead_names_the_leader(fleet: Cluster) -> None:
    leader, other = await fleet.leader(), await fleet.follower()
    async with fake_edge(other.target) as refused:
        await until(lambda: refused.error is not None)
    assert refused.error is not None
    assert refused.error.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(refused.error.trailing_metadata() or ())[LEADER_METADATA] == leader.target
    async with admin(other.target) as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="the leader is unix:"):
            await stub.SetIntent(admin_pb2.SetIntentRequest(replica="r1", actor="ada"))


async def test_ctl_follows_the_leader(fleet: Cluster) -> None:
    async with agent(fleet.targets, "n1", "r1"):
        old, other = await fleet.leader(), await fleet.follower()
        assert (await Client(other.target).fleet()).leader == old.name
        async with aclosing(Client(fleet.targets).watch()) as seen:
            first = await anext(seen)
            assert isinstance(first, Frame)
            assert first.fleet.leader == old.name
            await old.end()
            async for look in seen:
                if isinstance(look, Frame) and look.fleet.leader not in {"", old.name}:
                    break
        steer = Steer(Client(fleet.targets))
        _, previous = await steer.set_intents(["r1"], Intent.SPARE, Order("ada", outage_ok=True))
        assert previous == [Intent.ACTIVE]


async def test_without_a_store_nobody_leads_and_with_it_somebody_does(
    fleet: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.seat.PATIENCE_S", 0.1)
    async with agent(fleet.targets, "n1", "r1"), edge(fleet.targets) as (feed, table):
        await until(lambda: open_replicas(table) == {"r1"})
        term = table.term
        for member in fleet.members:
            member.link.cut = True
        await until(lambda: not feed.connected)
        for member in fleet.members:
            steer = Steer(Client(member.target))
            with pytest.raises(CtlError, match="no control plane leads now") as error:
                await steer.set_intents(["r1"], Intent.ACTIVE, Order("ada"))
            assert error.value.code is Exit.UNREACHABLE
            with pytest.raises(CtlError, match="the store fails: the link is cut"):
                await Client(member.target).fleet()
        assert open_replicas(table) == {"r1"}
        for member in fleet.members:
            member.link.cut = False
        await until(lambda: table.term > term)


async def test_what_is_stored_is_shown_while_nobody_leads(
    fleet: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.seat.PATIENCE_S", 0.1)
    async with agent(fleet.targets, "n1", "r1"), edge(fleet.targets) as (_, table):
        await until(lambda: open_replicas(table) == {"r1"})
        await Steer(Client(fleet.targets)).set_intents(
            ["r1"], Intent.CORDONED, Order("ada", "fan", outage_ok=True)
        )
        # the key stays, but nobody who could be asked holds it
        monkeypatch.setattr("controlplane.leader.StoreElection.keep", _lose)
        monkeypatch.setattr("controlplane.leader.StoreElection.claim", _never)
        for member in fleet.members:
            await member.end()
        async with TaskRunner() as runner:
            member = fleet.members[0]
            await fleet.start(runner, member)
            seen = await Client(member.target).fleet()
            await member.end()
    assert seen.leader == ""
    (view,) = seen.replicas
    assert (view.route.replica, view.intent) == ("r1", Intent.CORDONED)


async def _lose(*_: object) -> None:
    await asyncio.Event().wait()


async def _never(*_: object) -> None:
    await asyncio.sleep(0.05)


async def test_clients_of_an_edge_notice_nothing(
    fleet: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()
    monkeypatch.setattr(service, "stop_event", lambda: stop)
    async with sim_engine() as engine, contextlib.AsyncExitStack() as stack:
        runner = await stack.enter_async_context(TaskRunner())
        watched = (EngineConfig("r1", engine.url, 16),)
        settings = AgentConfig("n1", fleet.targets, watched)
        runner.forever("agent", serve_agent(asyncio.Event(), settings))
        host, port = free_address().split(":")
        admin_port = int(free_address().split(":")[1])
        listening = EdgeConfig("e1", host, int(port), host, admin_port, fleet.targets, None)
        serving = runner.once("edge", edge_main.serve(listening))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        statuses: list[int] = []

        async def ask() -> int:
            body = {"model": "demo", "prompt": "hi", "max_tokens": 4}
            url, key = f"http://{host}:{port}/v1/completions", {"authorization": "Bearer sk-test"}
            try:
                async with session.post(url, json=body, headers=key) as answer:
                    await answer.read()
                    return answer.status
            except aiohttp.ClientConnectionError:
                return 0  # it does not listen yet

        async with asyncio.timeout(30):
            while await ask() != 200:  # noqa: ASYNC110 - whoever is not ready has no event
                await asyncio.sleep(0.05)
        old = await fleet.leader()
        killed = runner.once("kill", old.kill())
        new = await fleet.leader(other_than=old)
        async with asyncio.timeout(30):
            while not (await fleet.fleet(new)).edges:
                statuses.append(await ask())
        statuses += [await ask() for _ in range(10)]
        await killed
        stop.set()
        await serving
    assert set(statuses) == {200}

"""What operators do by hand, over the wire: followed at once, kept, recorded, and undone."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import pytest

from ctl.client import Client
from ctl.exits import CtlError, Exit
from ctl.steer import Steer
from tests.fakes.closed_fleet import ClosedFleet, closed_fleet
from tests.fakes.local_engine import local_engine
from tests.fakes.peers import facts, fake_agent, fake_edge, sample
from tests.fakes.running_control_plane import config, running
from tests.fakes.wait import until
from tests.fakes.whole_fleet import whole_fleet
from trimtab.model import BreakerState, Intent, Serving
from trimtab.runtime.tasks import TaskRunner
from trimtab.steered import Order, Override, OverrideKind, Share, fault
from trimtab.views import Fleet

ADA = Order("ada", "fan")
K = OverrideKind
MINUTE_MS = 60_000


@pytest.fixture
async def target(tmp_path: pathlib.Path) -> AsyncIterator[str]:
    async with running(config(tmp_path)) as address:
        yield address


def breaker(fleet: Fleet, name: str = "r1") -> BreakerState:
    return next(r.route.breaker for r in fleet.replicas if r.route.replica == name)


async def test_weights_reach_edges_and_two_admins_do_not_overwrite_each_other(target: str) -> None:
    plane = Client(target)
    steer = Steer(plane)
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1", "r2")
        await edge.until_serving("r2", Serving.OPEN)
        await until(lambda: edge.slots("r1") == edge.slots("r2") == 20)
        wanted = Override(K.WEIGHTS, "m", (Share("r1", 70.0), Share("r2", 30.0)))
        first = await steer.set_override(wanted, MINUTE_MS, ADA)
        await until(lambda: (edge.slots("r1"), edge.slots("r2")) == (20, 8))
        (seen,) = (await plane.fleet()).overrides
        assert (seen.actor, seen.reason, seen.revision) == ("ada", "fan", first)
        assert 0 < seen.left_ms <= MINUTE_MS

        bob = Order("bob", "", first)
        second = await steer.set_override(wanted, 2 * MINUTE_MS, bob)
        with pytest.raises(CtlError, match=f"changed at revision {second}, after {first}") as late:
            await steer.set_override(wanted, MINUTE_MS, Order("eve", "", first))
        assert late.value.code is Exit.CONFLICT
        assert await steer.set_override(wanted, 0, ADA) > second
        assert await steer.set_override(wanted, 0, ADA) == 0, "there is nothing to end any more"
        await until(lambda: edge.slots("r2") == 20)


@pytest.mark.parametrize("hold_first", [True, False])
async def test_two_admins_take_the_last_two_at_the_same_moment(
    target: str, hold_first: bool
) -> None:
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1", "r2")
        await edge.until_serving("r2", Serving.OPEN)
        steer = Steer(Client(target))
        cordon = steer.set_intents(["r1"], Intent.CORDONED, ADA)
        hold = steer.set_override(Override(K.HOLD_OPEN, "r2"), MINUTE_MS, Order("bob"))
        both = (hold, cordon) if hold_first else (cordon, hold)
        results = await asyncio.gather(*both, return_exceptions=True)
        (refused,) = [one for one in results if isinstance(one, CtlError)]
        assert refused.code is Exit.CONFLICT
        assert "the last of m that is open" in str(refused)
        with pytest.raises(CtlError, match="the last of m that is open"):
            await steer.set_intents(["r1", "r2"], Intent.DRAINING, ADA)


async def test_an_override_and_the_record_outlive_a_restart(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path)
    async with running(settings) as target, fake_agent(target) as agent:
        await agent.serve("r1", "r2")
        steer = Steer(Client(target))
        await steer.set_override(Override(K.HOLD_OPEN, "r1"), MINUTE_MS, ADA)
        await steer.set_override(Override(K.PAUSE), MINUTE_MS, ADA)
        await steer.set_intents(["r1", "r2"], Intent.CORDONED, replace(ADA, outage_ok=True))
    async with running(settings) as target, fake_agent(target) as agent:
        await agent.serve("r1", "r2")
        plane = Client(target)
        fleet = await plane.fleet()
        assert [one.kind for one in fleet.overrides] == [K.HOLD_OPEN, K.PAUSE]
        assert {replica.intent for replica in fleet.replicas} == {Intent.CORDONED}
        entries, newest = await Steer(plane).audit(0, "")
        assert newest is not None
        assert fault(entries, newest) == ""
        assert [(e.action, e.target, e.before, e.after) for e in entries] == [
            ("breaker", "r1", "automatic", "hold open for 60 s"),
            ("automation", "fleet", "automatic", "pause for 60 s"),
            ("intent", "r1, r2", "ACTIVE", "CORDONED"),
        ]
        assert {one.actor for one in entries} == {"ada"}
        assert await Steer(plane).audit(0, "bob") == ([], newest)


async def test_a_replica_is_held_out_and_reset(target: str) -> None:
    plane = Client(target)
    steer = Steer(plane)
    async with fake_agent(target) as agent, fake_edge(target) as edge, TaskRunner() as runner:
        agent.probes_end = True
        for name in ("r1", "r2"):
            await agent.say(facts(name))
        reporting = runner.once("reports", agent.keep_reporting(sample("r1"), sample("r2")))
        await edge.until_serving("r1", Serving.OPEN)
        await steer.set_override(Override(K.HOLD_OPEN, "r1"), MINUTE_MS, ADA)
        await edge.until_serving("r1", Serving.CLOSED)
        assert "an operator holds it out" in edge.reason("r1")
        _, was = await steer.reset_breaker("r1", ADA)
        assert was == "EJECTED, 0 ejections, hold open"
        await edge.until_serving("r1", Serving.OPEN)
        assert breaker(await plane.fleet()) in {BreakerState.RAMPING, BreakerState.HEALTHY}
        reporting.cancel()


async def test_a_probe_is_answered_by_the_agent(target: str) -> None:
    steer = Steer(Client(target))
    async with fake_agent(target) as agent:
        agent.probes_end = True
        await agent.serve("r1")
        await until_known(target, "r1")
        found = await steer.probe("r1", 1_000)
        assert (found.ok, found.node) == (True, "n1")
    with pytest.raises(CtlError, match="the agent of r1 on n1 is not there") as gone:
        await steer.probe("r1", 1_000)
    assert gone.value.code is Exit.CONFLICT


async def test_an_edge_is_drained_and_taken_back(target: str) -> None:
    steer = Steer(Client(target))
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        with pytest.raises(CtlError, match="there is no edge 'e2'"):
            await steer.set_override(Override(K.EDGE_DRAIN, "e2"), MINUTE_MS, ADA)
        await steer.set_override(Override(K.EDGE_DRAIN, "e1"), MINUTE_MS, ADA)
        await until(lambda: edge.credits.leaving)
        assert edge.slots("r1") == 20, "it serves on"
        await steer.set_override(Override(K.EDGE_DRAIN, "e1"), 0, ADA)
        await until(lambda: not edge.credits.leaving)


async def test_requests_go_as_the_weights_say_and_a_probe_passes_them_by(
    tmp_path: pathlib.Path,
) -> None:
    steer = Steer(Client(f"unix:{tmp_path}/control.sock"))
    shares = Override(K.WEIGHTS, "demo", (Share("r1", 100.0), Share("r2", 1.0)))
    body = {"model": "demo", "prompt": "hi", "max_tokens": 4_000, "ignore_eos": True}
    headers = {"authorization": "Bearer sk-test"}
    async with (
        local_engine() as one,
        local_engine() as two,
        whole_fleet(tmp_path, {"r1": one.url, "r2": two.url}) as edge,
        aiohttp.ClientSession(headers=headers) as http,
        AsyncExitStack() as streams,
    ):
        await steer.set_override(shares, MINUTE_MS, ADA)
        await until(lambda: [c.share for c in edge.table.credits.values()] == [1.0, 0.01])
        for _ in range(14):
            stream = http.post(f"{edge.url}/v1/completions", json={**body, "stream": True})
            answer = await streams.enter_async_context(stream)
            assert answer.status == 200
        assert edge.inflight("r1") >= 13, "the other may have one in a hundred"
        found = await steer.probe("r2", 5_000)
        assert (found.ok, found.node) == (True, "n1")


async def until_known(target: str, name: str) -> None:
    async def known() -> bool:
        return name in {r.route.replica for r in (await Client(target).fleet()).replicas}

    while not await known():
        pass


@pytest.mark.parametrize(
    ("wanted", "for_ms", "code", "text"),
    [
        (Override(K.UNSPECIFIED), 1, Exit.USAGE, "kind must be one of WEIGHTS"),
        (Override(K.PAUSE, "r1"), 1, Exit.USAGE, "for the whole fleet"),
        (Override(K.PAUSE), 31 * 86_400_000, Exit.USAGE, "ends within 30 days"),
        (Override(K.HOLD_OPEN, "r11"), 1, Exit.NOT_FOUND, "no replica 'r11'; did you mean r1?"),
        (Override(K.WEIGHTS, "mm"), 1, Exit.NOT_FOUND, "no pool 'mm'; did you mean m?"),
        (Override(K.WEIGHTS, "m"), 1, Exit.USAGE, "the weights of 1 to 64 replicas"),
        (Override(K.WEIGHTS, "m", (Share("r1", 0.0),)), 1, Exit.USAGE, "not all weights may be 0"),
        (Override(K.WEIGHTS, "m", (Share("r1", -1.0),)), 1, Exit.USAGE, "must be 0 to 1000000"),
        (Override(K.WEIGHTS, "m", (Share("r9", 1.0),)), 1, Exit.USAGE, "r9 is no replica of m"),
    ],
)
async def test_what_cannot_be_is_refused_in_a_sentence(
    target: str, wanted: Override, for_ms: int, code: Exit, text: str
) -> None:
    async with fake_agent(target) as agent:
        await agent.serve("r1")
        await until_known(target, "r1")
        with pytest.raises(CtlError, match=text) as error:
            await Steer(Client(target)).set_override(wanted, for_ms, ADA)
        assert error.value.code is code
        assert await Steer(Client(target)).audit(0, "") == ([], None)


@pytest.fixture
async def closed(tmp_path: pathlib.Path) -> AsyncIterator[ClosedFleet]:
    async with closed_fleet(tmp_path) as fleet:
        yield fleet


async def test_a_certificate_says_who_it_was_whatever_is_claimed(closed: ClosedFleet) -> None:
    admin = await closed.member("admin", "grace")
    steer = Steer(Client(closed.target, admin))
    await steer.set_override(Override(K.PAUSE), MINUTE_MS, Order("root@somewhere", "drill"))
    await closed.revoke("grace")
    entries, newest = await Steer(Client(closed.settings.admin_socket)).audit(0, "")
    assert newest is not None
    assert fault(entries, newest) == ""
    assert [(e.actor, e.action, e.target) for e in entries] == [
        ("unknown", "token create", entries[0].target),
        ("grace", "automation", "fleet"),
        ("unknown", "certificate revoke", "admin grace"),
    ]

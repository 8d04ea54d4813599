"""`ctl doctor`'s facts on their way: from agents and edges over the leader to who asks."""

from __future__ import annotations

import asyncio
import pathlib
import random
from dataclasses import replace

import pytest

from agent.config import AgentConfig, EngineConfig
from agent.main import serve_until
from controlplane import questions
from ctl import doctor
from ctl.client import Client
from ctl.judges import Level, judge
from edge.core.arrivals import Arrivals
from edge.core.decisions import Decisions
from edge.core.dispatch import Dispatch
from edge.core.table import RoutingTable
from edge.questions import tellers
from tests.fakes.local_engine import local_engine
from tests.fakes.peers import fake_agent, fake_edge
from tests.fakes.running_control_plane import config, running
from tests.fakes.wait import DEADLINE_S, until
from trimtab.facts import EngineSetup, NodeFacts
from trimtab.model import ApiKey, Urgency
from trimtab.runtime import clock
from trimtab.runtime.own_facts import own_facts
from trimtab.runtime.tasks import TaskRunner


async def test_what_each_process_tells_of_itself(tmp_path: pathlib.Path) -> None:
    keys = (ApiKey(b"\x01" * 32, "k", Urgency.BATCH),)
    stop = asyncio.Event()
    async with (
        local_engine() as engine,
        running(config(tmp_path, keys=keys)) as target,
        fake_edge(target) as edge,
        TaskRunner() as tasks,
    ):
        edge.tellers = tellers(
            Decisions(), Arrivals(0.0), Dispatch(RoutingTable(), random.Random(0))
        )
        watched = AgentConfig("n1", target, (EngineConfig("r1", engine.url),))
        _ = tasks.once("agent", serve_until(stop, watched))
        await until(lambda: edge.serving("r1") is not None)
        async with asyncio.timeout(DEADLINE_S):
            while not (case := await doctor._case(Client(target))).engines["r1"].seen:
                pass
        stop.set()
    setup = case.engines["r1"]
    assert setup.listens == ("127.0.0.1",)
    assert setup.has_flags
    assert setup.dev_mode is False
    facts = case.facts
    assert (facts.store, facts.store_error, facts.uses_classes) == ("embedded", "", True)
    assert facts.store_read_s is not None
    assert facts.store_write_s is not None
    assert [(peer.name, peer.error) for peer in facts.edges] == [("e1", "")]
    for peer in (*facts.agents, *facts.edges):
        assert abs(peer.ahead_s) < 1.0
        assert peer.process.open_files_limit > 0
    named = {one.check: one.level for one in judge(case)}
    assert named["classes"] is Level.WARN
    assert named["clocks"] is Level.OK


async def test_clocks_and_those_that_say_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "WITHIN_S", 0.2)
    async with (
        running(config(tmp_path)) as target,
        fake_agent(target) as agent,
        fake_agent(target, "n2") as older,
        fake_edge(target) as edge,
    ):
        edge.is_older = True
        process = replace(own_facts(), at_ms=round((clock.wall_s() - 100.0) * 1000))
        await agent.say(NodeFacts(process, (EngineSetup("r1", strangers=1),)))
        await older.report()
        async with asyncio.timeout(DEADLINE_S):
            while not (case := await doctor._case(Client(target))).engines:
                pass
    n1, n2 = case.facts.agents
    assert -110.0 < n1.ahead_s < -99.0
    assert n1.engines[0].strangers == 1
    assert "does not say" in n2.error
    assert "no answer in" in case.facts.edges[0].error

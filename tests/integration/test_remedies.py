"""Restarts that the leader grants: stored and audited first, one at a time, never while paused."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from controlplane import audit, explaining, remedies
from controlplane.core.events import OverrideSet
from controlplane.core.overrides import key
from controlplane.loop import ControlLoop
from tests.fakes.leading import SETTINGS, leading
from tests.fakes.peers import FakeAgent, facts, fake_agent, sample
from tests.fakes.store import FakeStore
from tests.fakes.wait import until
from trimtab.directives import Restart, Restarted
from trimtab.model import EngineSample, EngineState
from trimtab.policy.remedy import Rules
from trimtab.runtime.tasks import TaskRunner
from trimtab.steered import Override, OverrideKind

RULES = Rules(per_hour=1, floor=1, after_s=60.0)
STALLED = EngineState.STALLED
NAMES = ("r1", "r2", "r3")


def stuck(name: str, seconds: int = 70) -> EngineSample:
    return sample(name, STALLED, no_progress_ms=1000 * seconds, running=2, reason="nothing moves")


@asynccontextmanager
async def fleet(
    directory: pathlib.Path, store: FakeStore | None = None
) -> AsyncIterator[tuple[ControlLoop, FakeAgent]]:
    settings = replace(SETTINGS, remediation=RULES)
    async with (
        leading(directory, settings, store) as (target, loop),
        fake_agent(target) as agent,
    ):
        for number, name in enumerate(NAMES):
            unit = f"vllm@{number}.service"
            await agent.say(facts(name, url=f"http://h:{number + 1}", unit=unit))
        await agent.report(*map(sample, NAMES))
        yield loop, agent


def grants(agent: FakeAgent) -> list[Restart]:
    return [one for one in agent.directives if isinstance(one, Restart)]


def told(loop: ControlLoop, what: str) -> list[str]:
    return [event.text for event in loop.journal.after(0)[0] if event.what == what]


async def explained(loop: ControlLoop, name: str) -> str:
    found = await explaining.replica(loop, name)
    return next(finding.text for finding in found.findings if finding.what == "restart")


async def test_one_of_a_pool_is_granted_audited_and_followed(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    async with fleet(tmp_path, store) as (loop, agent), TaskRunner() as tasks:
        talk = agent.keep_reporting(stuck("r1", 90), stuck("r2"), sample("r3"))
        tasks.forever("talk", talk)
        await until(lambda: len(grants(agent)) == 1)
        (grant,) = grants(agent)
        assert (grant.replica, grant.term, grant.epoch) == ("r1", 1, 1)
        assert grant.reason == "nothing moves, for 90 s"
        (entry,) = (await audit.read(store))[0]
        said = (entry.actor, entry.action, entry.target, entry.after, entry.reason)
        assert said == ("trimtab", "restart engine", "r1", "vllm@0.service", grant.reason)
        await agent.say(Restarted("r1", 1, ok=True))
        assert "r1 of its pool is being restarted" in await explained(loop, "r2")
        agent.samples = (sample("r1", epoch=2), stuck("r2"), sample("r3"))
        agent.probes_end = True
        await until(lambda: len(grants(agent)) == 2)
        assert grants(agent)[1].replica == "r2", "its turn, now that the other serves"
        assert "serves again" in await explained(loop, "r1")
        assert told(loop, "restart granted")[0] == "reason nothing moves, for 90 s"
        assert told(loop, "restart asked of systemd")


async def test_another_leader_counts_what_was_granted(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    async with fleet(tmp_path, store) as (_, agent), TaskRunner() as tasks:
        tasks.forever("talk", agent.keep_reporting(stuck("r1"), sample("r2"), sample("r3")))
        await until(lambda: len(grants(agent)) == 1)
        await agent.say(Restarted("r1", 1, ok=False, detail="Access denied"))
    async with fleet(tmp_path, store) as (loop, agent), TaskRunner() as tasks:
        tasks.forever("talk", agent.keep_reporting(stuck("r1"), sample("r2"), sample("r3")))
        await until(lambda: bool(loop.remedies.says("r1").count("ago")))
        await asyncio.sleep(3 * remedies.PERIOD_S)  # time enough to grant another
        assert grants(agent) == []


async def test_a_pause_stops_it(tmp_path: pathlib.Path) -> None:
    async with fleet(tmp_path) as (loop, agent), TaskRunner() as tasks:
        override = Override(OverrideKind.PAUSE, until_ms=2**53)
        loop.tell(OverrideSet(key(OverrideKind.PAUSE, ""), override, "ada"))
        tasks.forever("talk", agent.keep_reporting(stuck("r1"), sample("r2"), sample("r3")))
        await until(lambda: "paused" in loop.remedies.says("r1"))
        assert "ctl pause" in await explained(loop, "r1")
        assert grants(agent) == []
        loop.tell(OverrideSet(key(OverrideKind.PAUSE, ""), None, "ada"))
        await until(lambda: len(grants(agent)) == 1)

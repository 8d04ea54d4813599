"""The agent's heartbeat: look at every engine, judge, report; and do as the control plane says.

Rules: looks at all engines go out together and are waited for briefly, so no engine delays another
nor the report; each engine has at most one question of a kind under way.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Callable, Collection, Coroutine
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version

from agent.engine import Probed
from agent.nvml import GpuWatch
from agent.remedy import Remedy
from agent.uplink import Uplink
from agent.watch import EngineWatch
from trimtab.directives import Drain, Restart, Resume
from trimtab.facts import EngineSetup, NodeFacts
from trimtab.model import (
    AgentDirective,
    AgentMessage,
    EngineFacts,
    NodeHello,
    Outcome,
    Probe,
    ProbeResult,
    Refused,
    Report,
    SetReportPeriod,
)
from trimtab.runtime import clock
from trimtab.runtime.own_facts import own_facts
from trimtab.runtime.tasks import TaskRunner

LOOK_PERIOD_S = 0.5
"""Longest time between looks, however rarely reports are asked for: a hang is to be seen in 3 s."""
LOOK_WAIT_S = 0.2
"""Judge without those that have not answered by then; a busy engine takes 5 to 20 ms."""
PERIOD_MIN_S, PERIOD_MAX_S = 0.1, 60.0
PROBE_TIMEOUT_MAX_S = 30.0
REFUSALS_LIMIT = 64
NODE_FACTS_PERIOD_S = 60.0
"""While nothing of them changes: clocks drift."""
log = logging.getLogger("agent.loop")


class AgentLoop:
    """Drives the watches and is the uplink's source."""

    def __init__(
        self,
        node: str,
        watches: dict[str, EngineWatch],
        gpus: GpuWatch,
        uplink: Uplink,
        report_period_s: float,
    ) -> None:
        self._hello = NodeHello(node, version("trimtab"), uuid.uuid4().hex)
        self._watches = watches
        self._new: dict[str, EngineWatch] = {}
        self._gpus = gpus
        self._uplink = uplink
        self._period_s = report_period_s
        self._seq = 0
        self._told: dict[str, EngineFacts] = {}
        self._refusals: set[str] = set()
        self._set_up: tuple[EngineSetup, ...] = ()
        self._node_told_s = clock.now_s()
        self._tasks: TaskRunner | None = None
        self._remedy = Remedy()
        self._underway: dict[str, asyncio.Task[None]] = {}
        self.looked = asyncio.Event()
        """Every engine was looked at once."""

    async def run(self) -> None:
        """For ever."""
        async with TaskRunner() as self._tasks:
            try:
                await self._beat(self._tasks)
            finally:
                for task in self._underway.values():
                    task.cancel()

    @property
    def watched(self) -> Collection[str]:
        """The replicas that it watches, or will from the next look on."""
        return {*self._watches, *self._new}

    def watch(self, replica: str, watch: EngineWatch) -> None:
        """Watch another one from the next look on."""
        self._new[replica] = watch

    def opening(self) -> list[AgentMessage]:
        """Who we are and what is known about every engine."""
        self._seq = 0
        for watch in self._watches.values():
            watch.new_stream()
        return [self._hello, *self._told.values(), self._node_facts()]

    def report(self) -> Report:
        """The node now; only engines whose facts were told."""
        view = self._gpus.latest(clock.now_s())
        self._seq += 1
        samples = (self._watches[replica].sample(view.gpus) for replica in self._told)
        return Report(self._seq, tuple(samples), view.gpus, view.detail)

    def take(self, directive: AgentDirective) -> None:
        """Do as told."""
        match directive:
            case SetReportPeriod():
                period_s = directive.period_ms / 1000
                self._period_s = min(max(period_s, PERIOD_MIN_S), PERIOD_MAX_S)
            case Probe():
                self._probe(directive)
            case Drain() | Resume():
                watch = self._watches.get(directive.replica)
                if watch is not None:
                    watch.draining = isinstance(directive, Drain)
            case Restart():
                self._restart(directive)
            case Refused():
                self._refused(directive.reason)

    async def _beat(self, tasks: TaskRunner) -> None:
        beats = 0
        next_s = clock.now_s()
        while True:
            await self._look(tasks)
            self.looked.set()
            looks_per_report = math.ceil(self._period_s / LOOK_PERIOD_S)
            beats += 1
            if beats >= looks_per_report:
                beats = 0
                self._uplink.report_due()
            now_s = clock.now_s()
            next_s = max(next_s + self._period_s / looks_per_report, now_s)
            await asyncio.sleep(next_s - now_s)

    async def _look(self, tasks: TaskRunner) -> None:
        self._watches.update(self._new)
        self._new.clear()
        for replica, watch in self._watches.items():
            self._start(tasks, f"look {replica}", watch.look)
            self._start(tasks, f"check {replica}", watch.check)
        looks = [self._underway[f"{ask} {r}"] for ask in ("look", "check") for r in self._watches]
        await asyncio.wait(looks, timeout=LOOK_WAIT_S)
        for replica, watch in self._watches.items():
            watch.assess()
            if watch.should_learn():
                self._start(tasks, f"learn {replica}", watch.learn)
            if watch.known:
                self._tell(watch.facts())
        setups = self._setups()
        if setups != self._set_up or clock.now_s() - self._node_told_s >= NODE_FACTS_PERIOD_S:
            self._uplink.send(self._node_facts())

    def _setups(self) -> tuple[EngineSetup, ...]:
        return tuple(watch.setup() for watch in self._watches.values() if watch.known)

    def _node_facts(self) -> NodeFacts:
        self._set_up, self._node_told_s = self._setups(), clock.now_s()
        return NodeFacts(own_facts(), self._set_up)

    def _start(
        self, tasks: TaskRunner, name: str, work: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        """Begin, unless it is still under way."""
        task = self._underway.get(name)
        if task is None or task.done():
            self._underway[name] = tasks.once(f"agent.{name}", work())

    def _tell(self, facts: EngineFacts) -> None:
        told = self._told.get(facts.replica)
        if told is None or replace(told, uptime_ms=facts.uptime_ms) != facts:
            self._uplink.send(facts)
        self._told[facts.replica] = facts

    def _probe(self, probe: Probe) -> None:
        watch, name = self._watches.get(probe.replica), f"probe {probe.replica}"
        underway = self._underway.get(name)
        if watch is None or self._tasks is None or (underway and not underway.done()):
            detail = "a probe of it is under way" if watch else "not watched by this agent"
            self._probed(probe, Probed(Outcome.UNKNOWN, detail), 0)
            return
        self._start(self._tasks, name, partial(self._run_probe, watch, probe))

    async def _run_probe(self, watch: EngineWatch, probe: Probe) -> None:
        began_s = clock.now_s()
        probed = await watch.probe(min(probe.timeout_ms / 1000, PROBE_TIMEOUT_MAX_S))
        self._probed(probe, probed, round((clock.now_s() - began_s) * 1000))

    def _probed(self, probe: Probe, probed: Probed, duration_ms: int) -> None:
        result = ProbeResult(
            probe_id=probe.probe_id,
            replica=probe.replica,
            ok=probed.outcome is Outcome.OK,
            detail=probed.detail,
            duration_ms=duration_ms,
            outcome=probed.outcome,
        )
        self._uplink.send(result)

    def _restart(self, grant: Restart) -> None:
        if self._tasks is not None:
            self._start(self._tasks, f"restart {grant.replica}", partial(self._run_restart, grant))

    async def _run_restart(self, grant: Restart) -> None:
        result = await self._remedy.restart(grant, self._watches.get(grant.replica))
        log.warning("restart of an engine", extra={"fields": asdict(grant) | asdict(result)})
        self._uplink.send(result)

    def _refused(self, reason: str) -> None:
        if reason not in self._refusals and len(self._refusals) < REFUSALS_LIMIT:
            self._refusals.add(reason)
            log.warning("control plane refused a message", extra={"fields": {"reason": reason}})

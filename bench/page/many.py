"""A fleet of many replicas over a real registry, and what its page costs the control plane.

Rules: nothing runs but the registry, the view and the page's own work; each tick moves every
replica, so that every row of every update is new: more than a real fleet changes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from statistics import mean

import msgspec

from controlplane.core import view
from controlplane.core.events import AgentSaid, EdgeSaid
from controlplane.core.past import Past, tenants
from controlplane.core.placement import Placement
from controlplane.core.registry import Registry
from trimtab import history, status
from trimtab.model import (
    EdgeHello,
    EdgeReport,
    EngineFacts,
    EngineSample,
    EngineState,
    HistogramDelta,
    LimitSource,
    NodeHello,
    Pool,
    PoolUse,
    ReplicaUse,
    Report,
    TenantUse,
)
from trimtab.runtime import clock
from trimtab.verdict import judge

SLOTS = 128
EDGES = 4
SICK = 3


@dataclass
class Many:
    """The page's source: `number` replicas, some of them stalled, six hours of past."""

    number: int
    at_s: float = field(default_factory=clock.wall_s)
    costs_s: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = [f"node{i // 8:02}-gpu{i % 8}" for i in range(self.number)]
        self.dice = random.Random(1)  # noqa: S311
        self.registry = Registry(Placement([Pool("m")]), self.dice, 0.0)
        self.seq = 0
        self.tokens = [0] * self.number
        for node in range(0, self.number, 50):  # as many as one agent may have is 64
            self.registry.handle(AgentSaid(1 + node, NodeHello(f"n{node}")), 0.0)
        for i, name in enumerate(self.names):
            facts = EngineFacts(
                name, f"http://h:{8000 + i}", ("m",), 4096, SLOTS, LimitSource.CONFIG
            )
            self.registry.handle(AgentSaid(1 + i // 50 * 50, facts), 0.0)
        for edge in range(EDGES):
            self.registry.handle(EdgeSaid(10_000 + edge, EdgeHello(f"e{edge}")), 0.0)
        self.kept = Past(self.at_s - 6 * 3600)
        self._fill()

    def remember(self, at_s: float) -> list[history.Finished]:
        """Everything has moved; note it."""
        self.move(at_s - self.at_s)
        began_s = clock.cpu_s()
        cells = self.kept.take(self.registry, at_s - self.at_s, at_s)
        self._cost("history", began_s)
        return cells

    def look(self, at_s: float) -> status.Look:
        """As the control plane has it."""
        began_s, now_s = clock.cpu_s(), at_s - self.at_s
        fleet = view.fleet(view.Leader("lab", "cp1", "0.1.0", 1, 1), self.registry, {}, now_s)
        known = tenants(self.registry.edges.by_name.values(), now_s)
        since_s = self.kept.history.since_s
        found = status.Look(
            "control plane", "cp1", fleet, judge(fleet), at_s, since_s, tenants=known
        )
        self._cost("view", began_s)
        return found

    def past(self) -> history.History:
        """Six hours of it."""
        return self.kept.history

    async def explain(self, replica: str) -> object:
        """Nothing to explain here."""
        raise KeyError(replica)

    def move(self, now_s: float) -> None:
        """Agents and edges report."""
        self.seq += 1
        for first in range(0, self.number, 50):
            part = range(first, min(first + 50, self.number))
            samples = tuple(map(self._sample, part))
            self.registry.handle(AgentSaid(1 + first, Report(self.seq, samples)), now_s)
        for edge in range(EDGES):
            uses = tuple(ReplicaUse(name, self.dice.randrange(40), 2) for name in self.names)
            who = TenantUse(f"t{edge}", queued=self.dice.randrange(9), charged_work=50.0)
            pool = PoolUse("m", self.dice.randrange(50), 0, 2 * self.number, 1, (who,))
            self.registry.handle(
                EdgeSaid(10_000 + edge, EdgeReport(self.seq, uses, (pool,))), now_s
            )

    def update_cost_s(self, ticks: int) -> dict[str, float]:
        """Mean seconds of CPU a tick, by what for; one update is sent to all who watch."""
        self.costs_s.clear()
        before = status.document(self.look(self.at_s))
        for tick in range(1, ticks + 1):
            at_s = self.at_s + tick
            cells, look = self.remember(at_s), self.look(at_s)
            began_s = clock.cpu_s()
            after = status.document(look)
            change = {
                **status.delta(before, after),
                "cells": status.cells(self.kept.history, cells),
            }
            self.update_bytes = len(msgspec.json.encode(change))
            before = after
            self._cost("update", began_s)
        return {name: mean(costs) for name, costs in self.costs_s.items()}

    def _cost(self, what: str, began_s: float) -> None:
        self.costs_s.setdefault(what, []).append(clock.cpu_s() - began_s)

    def _sample(self, i: int) -> EngineSample:
        self.tokens[i] += 2_000 + self.dice.randrange(500)
        stalled = i % (self.number // SICK) == 7
        return EngineSample(
            self.names[i],
            EngineState.STALLED if stalled else EngineState.READY,
            "no token for 12 s" if stalled else "",
            running=self.dice.randrange(SLOTS),
            waiting=self.dice.randrange(4),
            no_progress_ms=12_000 if stalled else 0,
            kv_cache_usage_ratio=self.dice.random(),
            generation_tokens_total=self.tokens[i],
            ttft=HistogramDelta((0.5, 1.0), (3, self.dice.randrange(5)), 2.0),
        )

    def _fill(self) -> None:
        """Six hours, of which the last fifteen minutes by the second."""
        kept, start_s = self.kept.history, self.at_s - 6 * 3600
        pool = {"m": history.Pool(30, 0, 5)}
        moments = [start_s + 30 * k for k in range(690)]
        for at_s in [*moments, *(self.at_s - 900 + k for k in range(900))]:
            out = int(at_s / 600) % 3 == 0
            kept.add(
                at_s,
                {
                    name: history.Replica(
                        *("m", 4 + i % 3, 60, SLOTS, 1),
                        *((11, 7) if out and i % 33 == 7 else (1, 1)),
                    )
                    for i, name in enumerate(self.names)
                },
                pool,
            )

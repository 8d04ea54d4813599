"""The control plane's pure core without sockets, in virtual time: what a second of a fleet costs.

Rules: time is virtual, cost is CPU time of this process; the order of work is the control loop's.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.controlplane import said
from bench.controlplane.said import PERIOD_S, Engine
from controlplane.core import snapshot
from controlplane.core.credits import Ledger
from controlplane.core.events import AgentSaid, EdgeSaid, Tick
from controlplane.core.placement import Placement
from controlplane.core.registry import Registry
from controlplane.core.subscription import Differences, Subscription
from controlplane.main import GARBAGE_EVERY
from trimtab.codec import Parts
from trimtab.model import (
    Ack,
    Credits,
    EdgeHello,
    EdgePolicy,
    EdgeUpdate,
    EngineState,
    NodeHello,
    Report,
    Snapshot,
)
from trimtab.runtime.clock import cpu_s

WARM_PERIODS = 3
PER_NODE = 4  # engines: the nodes have a limit of their own


@dataclass(slots=True)
class Cost:
    """Milliseconds of CPU for one second of the fleet."""

    replicas: int
    edges: int
    report_ms: float = 0.0
    edge_report_ms: float = 0.0
    tick_ms: float = 0.0
    split_ms: float = 0.0
    routing_ms: float = 0.0
    subscription_ms: float = 0.0
    encode_ms: float = 0.0
    push_bytes: float = 0.0


class World:
    """A registry with its peers."""

    def __init__(self, replicas: int, edges: int, seed: int) -> None:
        self.cost = Cost(replicas, edges)
        self._now_s = 1_000.0
        self._dice = random.Random(f"{seed} {replicas} {edges}")  # noqa: S311 - must repeat
        self._registry = Registry(Placement([]), self._dice, self._now_s)
        self._engines = [Engine(n, self._dice, per_node=PER_NODE) for n in range(replicas)]
        shared = Differences()
        self._edges = {f"edge-{n:03}": Subscription(shared) for n in range(edges)}
        self._ledger = Ledger()
        self._routing = Snapshot()
        self._version = 0
        self._reports = 0
        self._credits: dict[str, Credits] = {}
        for number, engine in enumerate(self._engines):
            if number % PER_NODE == 0:
                self._hear(number, NodeHello(engine.node))
            self._hear(number // PER_NODE * PER_NODE, engine.facts())
        for number, name in enumerate(self._edges):
            self._registry.handle(EdgeSaid(-1 - number, EdgeHello(name)), self._now_s)

    def period(self, *, decides: bool) -> None:
        """Half a second: everybody reports, the loop ticks and publishes."""
        self._now_s += PERIOD_S
        victim = self._dice.choice(self._engines) if decides else None
        if victim is not None:
            victim.state = EngineState.DEAD
        self._reports += 1
        reports = [self._report(node) for node in range(0, len(self._engines), PER_NODE)]
        with self._timed("report_ms"):
            for number, report in enumerate(reports):
                self._registry.handle(AgentSaid(number * PER_NODE, report), self._now_s)
        self._hear_edges()
        if victim is not None:
            self._push()
        with self._timed("tick_ms"):
            self._registry.handle(Tick(), self._now_s)
        with self._timed("split_ms"):
            self._split()
        self._push()

    def _report(self, first: int) -> Report:
        """A node's."""
        parts = [engine.report() for engine in self._engines[first : first + PER_NODE]]
        engines = tuple(sample for part in parts for sample in part.engines)
        return Report(self._reports, engines, tuple(gpu for part in parts for gpu in part.gpus))

    def _hear(self, stream: int, *messages: object) -> None:
        for message in messages:
            self._registry.handle(AgentSaid(stream, message), self._now_s)  # type: ignore[arg-type]

    def _hear_edges(self) -> None:
        for number, name in enumerate(self._edges):
            told = self._credits.get(name, Credits())
            slots = {credit.replica: credit.slots for credit in told.credits}
            message = said.edge_report(self._reports, slots, self._dice)
            with self._timed("edge_report_ms"):
                self._registry.handle(EdgeSaid(-1 - number, message), self._now_s)

    def _split(self) -> None:
        registry = self._registry
        edges, replicas = registry.edges.by_name, registry.replicas.values()
        self._credits = self._ledger.split(replicas, edges, self._now_s)

    def _push(self) -> None:
        with self._timed("routing_ms"):
            replicas = self._registry.replicas.values()
            made = snapshot.build(replicas, (), (), EdgePolicy())
            if not snapshot.faults(made) and made != self._routing:
                self._routing = made
        parts = Parts()
        for name, subscription in self._edges.items():
            credit, updates = self._credits.get(name), list[EdgeUpdate]()
            with self._timed("subscription_ms"):
                updates = subscription.next(1, self._next, self._routing, credit, self._now_s)
            with self._timed("encode_ms"):
                pushes = [parts.update(update) for update in updates]
            for update, push in zip(updates, pushes, strict=True):
                subscription.ack(Ack(update.nonce), self._now_s)
                if isinstance(update.body, Credits):
                    self.cost.push_bytes = len(push)

    def _next(self) -> int:
        self._version += 1
        return self._version

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began_s = cpu_s()
        yield
        setattr(self.cost, part, getattr(self.cost, part) + 1e3 * (cpu_s() - began_s))


def measure(replicas: int, edges: int, span_s: float, seed: int) -> Cost:
    """The cost of a second, from so many virtual ones."""
    world = World(replicas, edges, seed)
    for _ in range(WARM_PERIODS):
        world.period(decides=False)
    world.cost = Cost(replicas, edges)
    gc.set_threshold(GARBAGE_EVERY)
    gc.collect()
    periods = max(2, round(span_s / PERIOD_S))
    for number in range(periods):
        world.period(decides=number % 2 == 0)
    cost = world.cost
    for part in ("report", "edge_report", "tick", "split", "routing", "subscription", "encode"):
        setattr(cost, f"{part}_ms", getattr(cost, f"{part}_ms") / (periods * PERIOD_S))
    return cost

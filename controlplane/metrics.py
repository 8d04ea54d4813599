"""What a control plane exports, as trimtab/catalogue.py defines it.

Rules: numbers are read on the loop, all at one moment, and become text elsewhere (`render`), as
that takes longer with many replicas; nothing is counted twice. Who does not lead knows little. Of
more replicas, nodes, edges or models than their labels may have, the first by name are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from controlplane.core import autoscale
from controlplane.core.refusals import Kind
from controlplane.core.registry import Registry
from controlplane.loop import ControlLoop
from trimtab import catalogue
from trimtab.catalogue import EDGE, MODEL, NODE, REPLICA
from trimtab.metric import Metric
from trimtab.model import Intent, Serving
from trimtab.runtime import clock, telemetry
from trimtab.runtime.tls import Identity
from trimtab.views import Fleet, PoolView, ReplicaView

Numbers = dict[Metric, Mapping[tuple[str, ...], float]]


class ControlMetrics:
    """One control plane's."""

    def __init__(self, read: Callable[[], Numbers], identity: Identity | None = None) -> None:
        self._read = read
        self._identity = identity
        self.registry = CollectorRegistry()
        self.process = telemetry.ProcessMetrics(self.registry, "controlplane")
        self._numbers = _Numbers()
        self.registry.register(self._numbers)

    def refresh(self) -> None:
        """Read what there is; on the loop."""
        if self._identity is not None:
            self.process.expires("peer", self._identity.peer.not_after_s)
        self._numbers.newest = self._read()

    def render(self, accept: str = "") -> bytes:
        """What Prometheus scrapes, as it asks for it: OpenMetrics has exemplars."""
        return choose_encoder(accept)[0](self.registry)


class _Numbers(Collector):
    """As last read."""

    def __init__(self) -> None:
        self.newest: Numbers = {}

    def collect(self) -> Iterator[Family]:
        """As prometheus_client asks."""
        for metric, values in self.newest.items():
            yield telemetry.family(metric, values)


def read(loop: ControlLoop | None) -> Numbers:
    """Everything; None for a loop: it does not lead."""
    numbers: Numbers = {catalogue.CONTROLPLANE_LEADER: {(): int(loop is not None)}}
    if loop is not None:
        numbers |= _own(loop)
        numbers |= of_fleet(loop.fleet(), loop.registry, clock.now_s())
    return numbers


def of_fleet(fleet: Fleet, registry: Registry, now_s: float) -> Numbers:
    """Of replicas, models, agents and edges."""
    return _replicas(fleet, registry, now_s) | _models(fleet, registry, now_s) | _peers(fleet)


def _own(loop: ControlLoop) -> Numbers:
    servings = loop.servings()
    shown = (Serving.OPEN, Serving.CLOSED, Serving.LOST)
    return {
        catalogue.CONTROLPLANE_REFUSED: {(k.value,): loop.refusals.counts[k] for k in Kind},
        catalogue.CONTROLPLANE_STREAMS: {(kind,): n for kind, n in loop.streams().items()},
        catalogue.CONTROLPLANE_REPLICAS: {(s.name.lower(),): servings[s] for s in shown},
        catalogue.CONTROLPLANE_TERM: {(): loop.term},
        catalogue.CONTROLPLANE_PUSH_LAG: {(): loop.push_lag_s()},
        catalogue.CONTROLPLANE_STORE_FAILURES: {(): loop.store_failures()},
    }


def _replicas(fleet: Fleet, registry: Registry, now_s: float) -> Numbers:
    views = fleet.replicas[: REPLICA.most]
    known = {view.route.replica: registry.replicas[view.route.replica] for view in views}
    ages = {
        _who(view): replica.sample.metrics_age_ms / 1000 + (replica.age_s(now_s) or 0.0)
        for view, replica in zip(views, known.values(), strict=True)
        if replica.sample is not None and replica.sample.metrics_age_ms is not None
    }
    moves = registry.breakers.moves.of
    return {
        catalogue.REPLICA_STATE: {(*_who(v), v.state.name.lower()): 1 for v in views},
        catalogue.REPLICA_BREAKER: {(*_who(v), v.route.breaker.name.lower()): 1 for v in views},
        catalogue.REPLICA_INTENT: {
            (*_who(v), (v.intent or Intent.ACTIVE).name.lower()): 1 for v in views
        },
        catalogue.REPLICA_TRANSITIONS: {
            (move.pool, name, move.before, move.after, move.cause): count
            for name in known
            for move, count in moves.get(name, {}).items()
        },
        catalogue.REPLICA_WEIGHT: {_who(v): v.weight for v in views},
        catalogue.REPLICA_ROUTED: {_who(v): known[v.route.replica].started for v in views},
        catalogue.REPLICA_SLOTS: {_who(v): v.limit_slots for v in views},
        catalogue.REPLICA_SLOTS_USED: {_who(v): v.inflight for v in views},
        catalogue.REPLICA_HEARTBEAT: ages,
        catalogue.REPLICA_HEALTHY: {
            _who(v): int(known[v.route.replica].health is Serving.OPEN) for v in views
        },
        catalogue.REPLICA_STARTS: {_who(v): known[v.route.replica].starts for v in views},
    }


def _who(view: ReplicaView) -> tuple[str, ...]:
    return view.route.pool, view.route.replica


@dataclass(slots=True)
class _Room:
    healthy_slots: int = 0
    slots: int = 0

    @property
    def withheld_ratio(self) -> float:
        return max(0.0, 1.0 - self.slots / self.healthy_slots) if self.healthy_slots else 0.0


def _models(fleet: Fleet, registry: Registry, now_s: float) -> Numbers:
    pools = fleet.pools[: MODEL.most]
    rooms = {pool.pool: _Room() for pool in pools}
    for view in fleet.replicas:
        room, replica = rooms.get(view.route.pool), registry.replicas[view.route.replica]
        if room is not None and view.intent in autoscale.WANTED:
            room.healthy_slots += view.full_slots if replica.health is Serving.OPEN else 0
            room.slots += view.limit_slots
    wanted = {pool.pool: _wanted(registry, pool, now_s) for pool in pools}
    moves = registry.breakers.moves
    return {
        catalogue.MODEL_HEALTHY_SLOTS: {
            (name,): room.healthy_slots for name, room in rooms.items()
        },
        catalogue.MODEL_SLOTS: {(name,): room.slots for name, room in rooms.items()},
        catalogue.MODEL_SLOTS_USED: {(pool.pool,): pool.inflight for pool in pools},
        catalogue.MODEL_QUEUED: {(pool.pool,): pool.queued for pool in pools},
        catalogue.MODEL_WITHHELD: {(name,): room.withheld_ratio for name, room in rooms.items()},
        catalogue.MODEL_PING_PONG: {
            (pool.pool,): moves.ping_pong(pool.pool, now_s) for pool in pools
        },
        catalogue.MODEL_REPLICAS: {(pool.pool,): pool.replicas for pool in pools},
        catalogue.MODEL_REPLICAS_WANTED: {(name,): count for name, count in wanted.items()},
    }


def _wanted(registry: Registry, pool: PoolView, now_s: float) -> int:
    demand = autoscale.demand(registry, pool.pool, now_s)
    return max(
        autoscale.by_queue(demand, autoscale.FIRST_TOKEN_S),
        autoscale.by_first_token(demand, autoscale.FIRST_TOKEN_S),
    )


def _peers(fleet: Fleet) -> Numbers:
    agents, edges = fleet.agents[: NODE.most], fleet.edges[: EDGE.most]
    return {
        catalogue.AGENT_REPORT_AGE: {
            (a.node,): a.report_age_ms / 1000 for a in agents if a.report_age_ms is not None
        },
        catalogue.EDGE_REPORT_AGE: {
            (e.edge,): e.report_age_ms / 1000 for e in edges if e.report_age_ms is not None
        },
    }

"""The connected edges: who they are, what they do, what they saw of replicas and pools.

Rules: one stream an edge; a name that another, living edge has is refused; what an edge says about
replicas and pools that we don't know is not kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from controlplane.core.bounds import (
    CHARGED_LIMIT,
    EDGE_LIMIT,
    INFLIGHT_LIMIT,
    TERM_LIMIT,
    bounded_pool_use,
    bounded_use,
    clip,
    instance_fault,
    name_fault,
)
from controlplane.core.events import EndStream, Noted, Refusal
from controlplane.core.refusals import Kind
from controlplane.core.replica import Replica
from controlplane.core.window import Minute
from trimtab.model import EdgeHello, EdgeReport, Outcome, PoolUse, ReplicaUse, SteadyUse, Urgency
from trimtab.policy.urgency import known

LEFT_S = 600.0  # so long after it left people may wonder why
FRESH_S = 3.0  # six of an edge's report periods: it lives
Who = tuple[Urgency, str]
"""A tenant's requests of one urgency."""
FAILURES = frozenset({Outcome.SOFT, Outcome.HARD, Outcome.PATH})


@dataclass(slots=True)
class Edge:
    """One connected edge."""

    hello: EdgeHello
    stream: int
    connected_at_s: float
    heard_at_s: float
    seq: int = 0
    reported_at_s: float | None = None
    news: tuple[ReplicaUse, ...] = ()
    """Of its newest report, the replicas on which something began, ended or failed."""
    inflight: Mapping[str, int] = field(default_factory=dict)
    """Its attempts by replica, where there are any; replaced, never changed."""
    pools: Mapping[str, PoolUse] = field(default_factory=dict)
    charged: dict[str, dict[Who, float]] = field(default_factory=dict)
    """Work charged to tenants since it was last taken, by pool."""
    minute: Minute = field(default_factory=Minute)
    work: Minute = field(default_factory=Minute)
    """By pool and tenant; apart, so that many tenants crowd out no other count."""
    leaving: bool = False
    """An operator drains it."""


class Edges:
    """The edges by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Edge] = {}
        self.waits = 0
        """Counts up when requests begin to wait at an edge."""
        self.asked = Counter[str]()
        self.shed = Counter[str]()
        """Requests of each pool, and those refused, since this leader began."""
        self.left_at_s: dict[str, float] = {}
        """When those that are gone left, of the last LEFT_S."""
        self._names: dict[int, str] = {}
        self._inflight: dict[str, int] = {}
        self._tokens_at_s: dict[str, float] = {}

    def hello(self, stream: int, hello: EdgeHello, now_s: float) -> list[EndStream | Noted]:
        """An edge introduces itself."""
        fault = self._fault(stream, hello, now_s)
        if fault:
            return [EndStream(stream, *fault)]
        effects: list[EndStream | Noted] = []
        old = self.by_name.get(hello.edge)
        if old is not None:
            del self._names[old.stream]
            self._use(old, {})
            effects.append(EndStream(old.stream, "the same edge has a newer stream"))
        hello = replace(
            hello, edge_version=clip(hello.edge_version), listen_url=clip(hello.listen_url)
        )
        self.left_at_s.pop(hello.edge, None)
        self.by_name[hello.edge] = Edge(hello, stream, connected_at_s=now_s, heard_at_s=now_s)
        self._names[stream] = hello.edge
        fields = {"edge": hello.edge, "edge_version": hello.edge_version}
        return [*effects, Noted("edge connected", fields)]

    def report(
        self,
        stream: int,
        report: EdgeReport,
        replicas: Mapping[str, Replica],
        pools: Container[str],
        now_s: float,
    ) -> list[EndStream | Refusal]:
        """An edge says what it does; empty when that was taken."""
        name = self._names.get(stream)
        if name is None:
            return [EndStream(stream, "the first message must be an EdgeHello", Kind.ORDER)]
        edge = self.by_name[name]
        if 0 < report.seq <= edge.seq:  # its counts would be added twice
            return [Refusal(name, Kind.ORDER, f"report {report.seq} after report {edge.seq}")]
        edge.seq, edge.heard_at_s, edge.reported_at_s = report.seq, now_s, now_s
        self._take_uses(edge, report, replicas, now_s)
        before = edge.pools
        shares = (use for use in report.pools if use.pool in pools)
        edge.pools = {use.pool: bounded_pool_use(use) for use in shares}
        for pool in edge.pools.values():
            edge.minute.add(("requests", pool.pool), pool.requests, now_s)
            edge.minute.add(("shed", pool.pool), pool.shed, now_s)
            self.asked[pool.pool] += pool.requests
            self.shed[pool.pool] += pool.shed
            self.waits += pool.queued > 0 and not (pool.pool in before and before[pool.pool].queued)
            _note_charges(edge, pool, now_s)
        return []

    def _take_uses(
        self, edge: Edge, report: EdgeReport, replicas: Mapping[str, Replica], now_s: float
    ) -> None:
        """What it says of replicas: of most only that attempts go on, and there are many."""
        steady = report.steady or SteadyUse()
        inflight = dict(zip(steady.replicas, steady.inflight, strict=False))
        if (
            max(inflight.values(), default=0) > INFLIGHT_LIMIT
            or not inflight.keys() <= replicas.keys()
        ):
            known = ((name, number) for name, number in inflight.items() if name in replicas)
            inflight = {name: min(number, INFLIGHT_LIMIT) for name, number in known}
        tokens_at_s = self._tokens_at_s
        for name, tokens in zip(steady.replicas, steady.tokens, strict=False):
            if tokens and name in inflight:
                tokens_at_s[name] = now_s
        news: list[ReplicaUse] = []
        for name, use in {u.replica: u for u in report.replicas if u.replica in replicas}.items():
            if use.dispatched or use.outcomes or use.cohorts or use.refused or use.unanswered_ms:
                news.append(bounded_use(use))
            if use.tokens:
                tokens_at_s[name] = now_s
            if use.inflight:
                inflight[name] = min(use.inflight, INFLIGHT_LIMIT)
        if not all(inflight.values()):
            inflight = {name: number for name, number in inflight.items() if number}
        for use in news:
            _count_use(replicas[use.replica], use, now_s)
        edge.news = tuple(news)
        self._use(edge, inflight)

    def tokens_at_s(self, replica: str) -> float | None:
        """When edges last told of tokens from a replica."""
        return self._tokens_at_s.get(replica)

    def forget(self, replica: str) -> None:
        """There is no such replica any more."""
        self._tokens_at_s.pop(replica, None)

    def inflight(self, replica: str) -> int:
        """Attempts of all edges on a replica."""
        return self._inflight.get(replica, 0)

    def speaker(self, stream: int) -> Edge | None:
        """The edge that speaks on a stream; None before its hello."""
        name = self._names.get(stream)
        return None if name is None else self.by_name[name]

    def gone(self, stream: int, now_s: float) -> list[EndStream | Noted]:
        """An edge's stream ended."""
        name = self._names.pop(stream, None)
        if name is None:
            return []
        self._use(self.by_name.pop(name), {})
        known = self.left_at_s.items()
        self.left_at_s = {who: at for who, at in known if now_s - at < LEFT_S} | {name: now_s}
        return [Noted("edge disconnected", {"edge": name})]

    def _use(self, edge: Edge, inflight: Mapping[str, int]) -> None:
        """An edge's attempts are these now."""
        total, before = self._inflight, edge.inflight
        for name, number in inflight.items():
            was = before.get(name, 0)
            if number != was:  # most are what they were
                total[name] = total.get(name, 0) + number - was
        for name in before.keys() - inflight.keys():
            total[name] -= before[name]
            if not total[name]:
                del total[name]
        edge.inflight = inflight

    def _fault(self, stream: int, hello: EdgeHello, now_s: float) -> tuple[str, Kind] | None:
        if stream in self._names:
            return "a stream has one EdgeHello", Kind.ORDER
        fault = name_fault(hello.edge) or instance_fault(hello.instance)
        if fault:
            return fault, Kind.NAME
        if max(hello.term, hello.version) >= TERM_LIMIT:
            text = f"no leader had term {hello.term} and version {hello.version}"
            return text, Kind.MESSAGE
        old = self.by_name.get(hello.edge)
        if old is None:
            full = len(self.by_name) >= EDGE_LIMIT
            return (f"there are {EDGE_LIMIT} edges already", Kind.FULL) if full else None
        if now_s - old.heard_at_s <= FRESH_S and old.hello.instance != hello.instance:
            return f"another edge is called {hello.edge}; give each its own name", Kind.NAME
        return None


def _count_use(replica: Replica, use: ReplicaUse, now_s: float) -> None:
    minute = replica.minute
    replica.started += use.dispatched
    if use.dispatched:
        minute.add("dispatched", use.dispatched, now_s)
    for outcome in use.outcomes:
        if outcome.outcome in FAILURES:
            minute.add("failures", outcome.count, now_s)
        elif outcome.outcome is Outcome.OVERLOAD:
            minute.add("overloads", outcome.count, now_s)
            replica.load.refused(now_s)


def _note_charges(edge: Edge, pool: PoolUse, now_s: float) -> None:
    charged = edge.charged.setdefault(pool.pool, {})
    for use in pool.tenants:
        if use.charged_work:
            edge.work.add((pool.pool, use.tenant), round(use.charged_work), now_s)
        who = (known(use.urgency), use.tenant)
        if who in charged or len(charged) < CHARGED_LIMIT:
            charged[who] = charged.get(who, 0.0) + use.charged_work

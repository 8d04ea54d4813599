"""What the timeline and the table of tenants are made from, read off the registry.

Rules: once a second whatever is watched, so it costs a microsecond a replica; counts are the
difference to the moment before, and a counter that fell (a restored state) counts as nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import replace

from controlplane.core.credits import slots
from controlplane.core.edges import Edge
from controlplane.core.registry import Registry
from controlplane.core.replica import Replica
from trimtab import history, status
from trimtab.model import Route, Serving


class Past:
    """Remembers one registry; `since_s` in seconds since 1970."""

    def __init__(self, since_s: float) -> None:
        self.history = history.History(since_s)
        self._started: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._shed: dict[str, int] = {}

    def take(self, registry: Registry, now_s: float, at_s: float) -> list[history.Finished]:
        """Note this moment; the cells of the timeline that are finished by it."""
        known = [(replica, replica.route) for replica in registry.replicas.values()]
        replicas = {r.name: self._replica(r, route, registry, now_s) for r, route in known if route}
        self._started = {replica.name: replica.started for replica, _ in known}
        return self.history.add(at_s, replicas, self._pools(registry))

    def _replica(
        self, replica: Replica, route: Route, registry: Registry, now_s: float
    ) -> history.Replica:
        sample = replica.sample
        return history.Replica(
            pool=route.pool,
            started=max(0, replica.started - self._started.get(replica.name, replica.started)),
            inflight=registry.edges.inflight(replica.name),
            limit=slots(replica, now_s) if route.serving is Serving.OPEN else 0,
            waiting=(sample.waiting or 0) if sample else 0,
            use=status.code(status.use(route, replica.wish.intent)),
            engine=status.engine_code(replica.state),
        )

    def _pools(self, registry: Registry) -> dict[str, history.Pool]:
        edges = registry.edges
        queued = Counter[str]()
        for edge in edges.by_name.values():
            for use in edge.pools.values():
                queued[use.pool] += use.queued
        found = {}
        for name in registry.pools():
            asked, shed = edges.asked[name], edges.shed[name]
            found[name] = history.Pool(
                max(0, asked - self._asked.get(name, asked)),
                max(0, shed - self._shed.get(name, shed)),
                queued[name],
            )
            self._asked[name], self._shed[name] = asked, shed
        return found


def tenants(edges: Iterable[Edge], now_s: float) -> list[status.Tenant]:
    """Who waits at the edges, and whose work the engines did in the last minute."""
    queued, work = Counter[Hashable](), Counter[Hashable]()
    oldest_ms: defaultdict[Hashable, int] = defaultdict(int)
    for edge in edges:
        for pool in edge.pools.values():
            for use in pool.tenants:
                who: Hashable = (pool.pool, use.tenant)
                queued[who] += use.queued
                oldest_ms[who] = max(oldest_ms[who], *use.ages_ms, 0)
        work.update(edge.work.totals(now_s))
    total = Counter[str]()
    found = []
    for one in queued.keys() | work.keys():
        match one:
            case (str(pool_name), str(tenant)) if tenant and (queued[one] or work[one] > 0):
                total[pool_name] += max(0, work[one])
                found.append(status.Tenant(tenant, pool_name, queued[one], oldest_ms[one] / 1000))
    parts = ((one, work[one.pool, one.tenant]) for one in found)
    return [replace(one, work_ratio=_part(part, total[one.pool])) for one, part in parts]


def _part(amount: int, total: int) -> float | None:
    return round(max(0, amount) / total, 3) if total else None

"""How many replicas a model needs, for whoever adds and removes them (docs/autoscaling.md).

Rules: a number of replicas, never a change of one, so that engines which take minutes to start are
not asked for twice. What is there and gets no requests, warm spares above all, is counted on top:
it is neither work done nor surplus. Where nothing works, what is there is kept: more of what is
broken is no help. First tokens ask for more only while engines are used, as a long prompt takes its
time on an idle engine, too; between half the objective and all of it they hold what there is.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from controlplane.core.credits import full_slots, pace
from controlplane.core.registry import Registry
from controlplane.core.replica import Replica
from controlplane.core.window import quantile
from trimtab.model import EngineState, Intent, Serving

FIRST_TOKEN_S = 5.0
"""The objective, where nobody names one."""
USED_RATIO = 0.8
"""Of the slots: the rest takes the burst that comes while another engine starts."""
BUSY_RATIO = 0.5
GROWTH_MAX = 2.0
"""At once, by late first tokens."""
HOLD_RATIO = 0.5
LATE_SHARE = 0.95
WANTED = (Intent.ACTIVE, Intent.UNSPECIFIED)


@dataclass(frozen=True, slots=True)
class Demand:
    """One model as it is now."""

    replicas: int = 0
    working: int = 0
    """Healthy, and wanted in use."""
    starting: int = 0
    slots: int = 0
    """Of those that work."""
    used: int = 0
    queued: int = 0
    queued_work: float = 0.0
    work_per_s: float | None = None
    """Of those that work, when full."""
    first_token_s: float | None = None
    """From a request's arrival; 19 of 20 are faster."""
    asked: bool = False
    """Whether anybody wanted anything in the last minute."""

    @property
    def is_active(self) -> bool:
        """Whether it needs a replica at all."""
        return self.asked or self.used + self.queued > 0

    @property
    def idle(self) -> int:
        """Those that get no requests: spares, and what is out of use."""
        return max(0, self.replicas - self.working - self.starting)


def by_queue(demand: Demand, first_token_s: float) -> int:
    """Replicas for what runs, and to be through with what waits within the objective."""
    least = int(demand.is_active)
    if not demand.slots:
        return max(least, demand.replicas)
    each = demand.slots * USED_RATIO / demand.working
    needed = demand.used / each
    if demand.work_per_s:
        needed += demand.queued_work * demand.working / (demand.work_per_s * first_token_s)
    else:
        needed += demand.queued / each
    return demand.idle + max(least, math.ceil(needed))


def by_first_token(demand: Demand, first_token_s: float) -> int:
    """Replicas for first tokens within the objective."""
    least, late = int(demand.is_active), (demand.first_token_s or 0.0) / first_token_s
    if not demand.slots:
        return max(least, demand.replicas)
    is_busy = demand.queued > 0 or demand.used >= BUSY_RATIO * demand.slots
    if late <= HOLD_RATIO or not is_busy:
        return demand.idle + least
    return demand.idle + math.ceil(demand.working * min(max(late, 1.0), GROWTH_MAX))


def demand(registry: Registry, pool: str, now_s: float) -> Demand:
    """What is known of a model."""
    replicas = [r for r in registry.replicas.values() if r.route and r.route.pool == pool]
    working = [r for r in replicas if _works(r)]
    edges = registry.edges.by_name.values()
    uses = [edge.pools[pool] for edge in edges if pool in edge.pools]
    first_token_s = _first_token_s(replicas, now_s)
    waited_s = max((use.oldest_wait_ms for use in uses), default=0) / 1000
    return Demand(
        replicas=len(replicas),
        working=len(working),
        starting=sum(r.state is EngineState.STARTING for r in replicas),
        slots=sum(full_slots(r, now_s) for r in working),
        used=sum(registry.edges.inflight(r.name) for r in replicas),
        queued=sum(use.queued for use in uses),
        queued_work=sum(tenant.queued_work for use in uses for tenant in use.tenants),
        work_per_s=pace(working, now_s),
        first_token_s=None
        if first_token_s is None and not waited_s
        else waited_s + (first_token_s or 0.0),
        asked=any(edge.minute.totals(now_s)["requests", pool] for edge in edges),
    )


def _works(replica: Replica) -> bool:
    return replica.health is Serving.OPEN and replica.wish.intent in WANTED


def _first_token_s(replicas: list[Replica], now_s: float) -> float | None:
    """At the engines, over the last minute."""
    counts = Counter[float]()
    for replica in replicas:
        for key, count in replica.minute.totals(now_s).items():
            if isinstance(key, tuple):
                counts[key[1]] += count
    return quantile(counts, LATE_SHARE)

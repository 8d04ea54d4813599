"""How many requests each edge may have on each replica, and the published weights.

Rules: a replica that is OPEN has L = max_num_seqs + QUEUE_TARGET slots over all edges, fewer while
its breaker ramps, split evenly: the rest of the division goes to edges picked by the replica's
name, so that no edge gets every rest. An edge gets at least 1, so that it can serve at all; the sum
is at most L + E. Others have 0. A weight is the replica's share of its pool's open slots.

Stands until limits adapt and grants follow demand; then `slots` and `split` are what changes.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

from controlplane.core.replica import Replica
from trimtab.model import Credit, Credits, Serving
from trimtab.policy import breaker

# Waiting in the engine: enough that a finished request's place is taken in the very next step,
# few enough that a request behind them waits for a fraction of a second.
QUEUE_TARGET = 4


def full_slots(replica: Replica) -> int:
    """Attempts allowed at once over all edges, if it is open and does not ramp."""
    return replica.facts.max_num_seqs + QUEUE_TARGET if replica.facts else 0


def slots(replica: Replica) -> int:
    """Attempts allowed at once over all edges, if it is open: its effective limit."""
    return breaker.slots(replica.standing.breaker, full_slots(replica))


def weights(replicas: Iterable[Replica]) -> dict[str, float]:
    """The weight of each open replica, by name; those of a pool add up to 1."""
    opened = [
        (replica.name, replica.route.pool, slots(replica))
        for replica in replicas
        if replica.route is not None and replica.route.serving is Serving.OPEN
    ]
    pool_slots: Counter[str] = Counter()
    for _, pool, count in opened:
        pool_slots[pool] += count
    return {name: count / pool_slots[pool] for name, pool, count in opened if count}


def split(replicas: Iterable[Replica], edges: Sequence[str], now_s: float) -> dict[str, Credits]:
    """What each edge gets. O(replicas x edges)."""
    replicas = list(replicas)
    shares = weights(replicas)
    names = sorted(edges)
    parts: dict[str, list[Credit]] = {name: [] for name in names}
    for replica in replicas if names else ():
        total = slots(replica) if replica.name in shares else 0
        floor, rest = divmod(total, len(names))
        start = zlib.crc32(replica.name.encode()) % len(names)
        few = _credit(replica, max(floor, min(total, 1)), shares, now_s)
        more = _credit(replica, floor + 1, shares, now_s)
        for index, name in enumerate(names):
            parts[name].append(more if (index - start) % len(names) < rest else few)
    return {name: Credits(tuple(part)) for name, part in parts.items()}


def _credit(replica: Replica, count: int, shares: dict[str, float], now_s: float) -> Credit:
    sample, age_s = replica.sample, replica.age_s(now_s)
    return Credit(
        replica=replica.name,
        slots=count,
        weight=shares.get(replica.name, 0.0),
        running=sample.running if sample else None,
        waiting=sample.waiting if sample else None,
        report_age_ms=None if age_s is None else max(0, round(age_s * 1000)),
    )

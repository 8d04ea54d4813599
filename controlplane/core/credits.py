"""How many requests each edge may have on each replica, and what edges are told of their pools.

Rules: a replica that is OPEN has its limit of slots over all edges, fewer while its breaker ramps;
others have none. The slots flow between edges as policy/grants says; an edge alone has them all. A
connected edge that has served before is told nothing until its first report on this stream: what it
has is unknown, and it goes on with what it was given. A weight is the replica's share of its
pool's open slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.core.charges import Charges
from controlplane.core.edges import Edge
from controlplane.core.replica import Replica
from trimtab.model import BreakerState, Credit, Credits, PoolPace, Serving, TenantUse
from trimtab.policy import breaker, grants, shares
from trimtab.policy.grants import Demand, Leases, Room
from trimtab.policy.work import mean_answer

Offer = Callable[[int], Credit]
REPORT_FRESH_S = 3.0  # what an edge said waits is not believed for longer
REPORT_GRACE_S = 1.0  # for an edge's first report on a stream: two of its periods


def full_slots(replica: Replica, now_s: float) -> int:
    """Attempts allowed at once over all edges, if it is open and does not ramp."""
    if replica.facts is None:
        return 0
    return int(replica.load.slots(replica.facts.max_num_seqs, now_s))


def slots(replica: Replica, now_s: float) -> int:
    """Attempts allowed at once over all edges, if it is open: its effective limit."""
    return breaker.slots(replica.standing.breaker, full_slots(replica, now_s))


def open_slots(replicas: Iterable[Replica], now_s: float) -> dict[str, int]:
    """What each open replica may have beside the others of its pool, by an operator's weights."""
    opened = [replica for replica in replicas if _is_open(replica)]
    return {
        name: count
        for members in _by_pool(opened).values()
        for name, count in _shared(members, {r.name: slots(r, now_s) for r in members}).items()
    }


def weights(replicas: Iterable[Replica], counts: Mapping[str, int]) -> dict[str, float]:
    """The weight of each open replica, of these slots; those of a pool add up to 1."""
    return _weights([replica for replica in replicas if replica.name in counts], counts)


def _shared(opened: Sequence[Replica], counts: Mapping[str, int]) -> Mapping[str, int]:
    ratios = _ratios(opened)
    return (
        {name: shares.scaled(n, ratios[name]) for name, n in counts.items()} if ratios else counts
    )


def _ratios(opened: Sequence[Replica]) -> Mapping[str, float]:
    """By an operator's weights for their pool; empty when there are none."""
    wanted = opened[0].weights if opened else {}
    if not wanted:
        return {}
    steady = [r.name for r in opened if r.standing.breaker.state is not BreakerState.RAMPING]
    return shares.ratios([r.name for r in opened], wanted, steady)


def pace(replicas: Iterable[Replica], now_s: float) -> float | None:
    """Work per second that those of one pool do when they are full; None while unknown."""
    opened = [replica for replica in replicas if _is_open(replica)]
    full = {replica.name: full_slots(replica, now_s) for replica in opened}
    limits = {r.name: breaker.slots(r.standing.breaker, full[r.name]) for r in opened}
    return _pace(opened, _shared(opened, limits), full)


def _weights(opened: Iterable[Replica], counts: Mapping[str, int]) -> dict[str, float]:
    pool_slots: Counter[str] = Counter()
    for replica in opened:
        pool_slots[_pool_of(replica)] += counts[replica.name]
    named = ((replica.name, _pool_of(replica)) for replica in opened)
    return {name: counts[name] / pool_slots[pool] for name, pool in named if counts[name]}


@dataclass(slots=True)
class _Pool:
    """What is remembered of one pool from push to push."""

    leases: Leases = field(default_factory=Leases)
    charges: Charges = field(default_factory=Charges)


@dataclass(frozen=True, slots=True)
class _Ask:
    """One pool at the moment of a split."""

    rooms: Mapping[str, Room]
    demands: Mapping[str, Demand]
    offers: Sequence[tuple[str, Offer]]
    """Each replica and what an edge with so many slots on it is told."""
    pace: float | None
    answer_tokens: float | None


class Ledger:
    """Splits the room of all replicas over the edges."""

    def __init__(self) -> None:
        self._pools: dict[str, _Pool] = {}
        self._split_s: float | None = None

    def split(
        self, replicas: Iterable[Replica], edges: Mapping[str, Edge], now_s: float
    ) -> dict[str, Credits]:
        """What each edge gets. O(replicas x edges)."""
        return grants.finish(self.splitting(replicas, edges, now_s))

    def splitting(
        self, replicas: Iterable[Replica], edges: Mapping[str, Edge], now_s: float
    ) -> Generator[None, None, dict[str, Credits]]:
        """`split` in steps, each about one replica; to be taken to the end, one split at a time.

        All of it is about the moment when it began, as far as edges and limits are concerned.
        """
        elapsed_s = 0.0 if self._split_s is None else max(0.0, now_s - self._split_s)
        self._split_s = now_s
        told = {name: edge for name, edge in edges.items() if _is_known(edge, now_s)}
        rows: list[list[Credit]] = []
        paces: dict[str, list[PoolPace]] = {name: [] for name in told}
        pools = _by_pool(replicas)
        self._pools = {name: self._pools.get(name) or _Pool() for name in pools}
        asked = {
            name: self._ask(name, pools[name], edges, told, elapsed_s, now_s) for name in pools
        }
        for name in pools:
            charges, ask = self._pools[name].charges, asked[name]
            leases = yield from self._grant(name, ask)
            for replica, offer in ask.offers:
                rows.append(_row(offer, leases.get(replica) or [0] * len(told)))
                yield
            for edge, of in paces.items():
                of.append(PoolPace(name, ask.pace, charges.elsewhere(edge), ask.answer_tokens))
        columns = zip(*rows, strict=True) if rows else (() for _ in told)
        return {
            name: Credits(tuple(column), tuple(paces[name]), edge.leaving)
            for (name, edge), column in zip(told.items(), columns, strict=True)
        }

    def _ask(
        self,
        pool: str,
        members: Sequence[Replica],
        edges: Mapping[str, Edge],
        told: Mapping[str, Edge],
        elapsed_s: float,
        now_s: float,
    ) -> _Ask:
        """What is to be split in one pool, as it is now."""
        waiting = {name: _waiting(edge, pool, now_s) for name, edge in told.items()}
        charges = self._pools[pool].charges
        charges.take(pool, edges, waiting)
        full = {replica.name: full_slots(replica, now_s) for replica in members}
        opened = [replica for replica in members if _is_open(replica)]
        limits = {r.name: breaker.slots(r.standing.breaker, full[r.name]) for r in opened}
        now, ratios = _shared(opened, limits), _ratios(opened)
        parts = _weights(opened, now)
        return _Ask(
            rooms={
                replica.name: Room(
                    limit=float(now[replica.name]),
                    ending=replica.load.finished_per_s * elapsed_s,
                )
                for replica in opened
            },
            demands={name: Demand(edge.inflight, waiting[name]) for name, edge in told.items()},
            offers=[
                (r.name, _offer(r, parts, full[r.name], ratios.get(r.name), now_s)) for r in members
            ],
            pace=_pace(opened, now, full),
            answer_tokens=mean_answer(replica.load.answers for replica in members),
        )

    def _grant(self, pool: str, ask: _Ask) -> Generator[None, None, dict[str, list[int]]]:
        """What edges are told of each open replica, in their order."""
        if not ask.demands:
            return {}
        known = self._pools[pool]
        counters = known.charges.shares.counters
        known.leases = yield from grants.granting(known.leases, ask.rooms, ask.demands, counters)
        edges = known.leases.edges
        order = sorted(range(len(edges)), key=edges.__getitem__)
        found: dict[str, list[int]] = {}
        for name, row in known.leases.rows.items():
            found[name] = grants.whole(row, name, order)
            yield
        return found


def _is_known(edge: Edge, now_s: float) -> bool:
    late = now_s - edge.connected_at_s >= REPORT_GRACE_S
    return edge.reported_at_s is not None or not edge.hello.term or late


def _is_open(replica: Replica) -> bool:
    return replica.route is not None and replica.route.serving is Serving.OPEN


def _pool_of(replica: Replica) -> str:
    return replica.route.pool if replica.route else ""


def _by_pool(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
    pools: dict[str, list[Replica]] = {}
    for replica in replicas:
        pools.setdefault(_pool_of(replica), []).append(replica)
    return pools


def _waiting(edge: Edge, pool: str, now_s: float) -> tuple[TenantUse, ...]:
    """Who waits at an edge, as far as that is still known."""
    use = edge.pools.get(pool)
    if use is None or edge.reported_at_s is None or now_s - edge.reported_at_s > REPORT_FRESH_S:
        return ()
    if use.queued and not use.tenants:  # an older edge tells no more than this
        return (TenantUse(queued=use.queued, ages_ms=(use.oldest_wait_ms,)),)
    return use.tenants


def _row(offer: Offer, counts: Sequence[int]) -> list[Credit]:
    """What each edge is told of one replica; those with as many slots are told the same thing."""
    told = {count: offer(count) for count in {*counts}}
    return [told[count] for count in counts]


def _offer(
    replica: Replica, parts: Mapping[str, float], full: int, ratio: float | None, now_s: float
) -> Offer:
    """What edges are told of one replica, by how many slots they have on it."""
    name, sample, age_s = replica.name, replica.sample, replica.age_s(now_s)
    rest = (
        parts.get(name, 0.0),
        sample.running if sample else None,
        sample.waiting if sample else None,
        None if age_s is None else max(0, round(age_s * 1000)),
        full,
        ratio,
    )
    return lambda slots: Credit(name, slots, *rest)


def _pace(
    opened: Sequence[Replica], now: Mapping[str, int], full: Mapping[str, int]
) -> float | None:
    """Work per second that the open replicas do when full; one never seen full is like others."""
    seen = [(replica.load.pace.work_per_s, full[replica.name]) for replica in opened]
    known = [(pace, slots_) for pace, slots_ in seen if pace is not None and slots_]
    if not known:
        return None
    per_slot = sum(pace for pace, _ in known) / sum(slots_ for _, slots_ in known)
    total = 0.0
    for replica, (pace, slots_) in zip(opened, seen, strict=True):
        total += now[replica.name] * (per_slot if pace is None or not slots_ else pace / slots_)
    return total

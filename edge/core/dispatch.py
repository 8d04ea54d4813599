"""Who waits, who runs where: the edge's accounting of requests and replicas, without any I/O.

Rules: a request is in exactly one place: a queue or one replica's in-flight count, or two of them
while it is hedged; a replica never holds more than its credit; the head of a queue is served first,
a request behind it only when the head can't use what is free; a pool whose replicas are all closed
refuses at once, since waiting helps only where something is known to work. What an attempt
was charged is corrected at its end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from edge.core import uses
from edge.core.models import has
from edge.core.table import RoutingTable
from trimtab.model import (
    BreakerState,
    Credit,
    EdgePolicy,
    Outcome,
    OutcomeCount,
    PoolUse,
    ReplicaUse,
    Route,
    Serving,
)
from trimtab.policy import affinity, hedge
from trimtab.policy.autonomy import Lease, Mode
from trimtab.policy.classify import Failure
from trimtab.policy.cohorts import Tally
from trimtab.policy.dice import Dice
from trimtab.policy.pick import Candidate, pick
from trimtab.policy.poison import Health, Way, Witness, strike
from trimtab.policy.queue import Queue, Refusal, Ticket
from trimtab.policy.retry import Budget
from trimtab.policy.suspicion import Suspicion
from trimtab.policy.work import work

LOOK_AHEAD = 8  # waiting requests considered for one free slot
REPORT_FRESH_MS = 2_000  # older reports say nothing about the engine's queue now
SETTLED = frozenset({BreakerState.HEALTHY, BreakerState.UNSPECIFIED})
PUSH_BACK_S = 1.0  # how long a replica's own "no room" counts more than its credit


@dataclass(slots=True)
class ReplicaState:
    """One replica's accounting at this edge."""

    inflight: int = 0
    dispatched: int = 0
    started: int = 0
    """Attempts since it is known."""
    refused: int = 0
    unanswered_s: float | None = None
    """Since when there are attempts on it that wait for their first data; None: there are none."""
    tokens: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    suspicion: Suspicion = field(default_factory=Suspicion)
    lease: Lease = field(default_factory=Lease)
    witness: Witness = field(default_factory=Witness)
    streaming: set[int] = field(default_factory=set)
    """Its requests whose first data has come."""
    full_at: int = 0
    """What it had when it last said that it has no room."""
    full_until_s: float = float("-inf")
    unsettled_until_s: float = float("-inf")
    """Until then no conversation has its home on it."""

    def room(self, credit_slots: int, now_s: float) -> int:
        """Attempts it may have now: its credit, or what it just proved to be too much."""
        if self.lease.slots is not None:
            credit_slots = int(self.lease.slots)
        return min(credit_slots, self.full_at) if now_s < self.full_until_s else credit_slots


@dataclass(slots=True)
class PoolState:
    """One pool's accounting at this edge."""

    queue: Queue
    budget: Budget = field(default_factory=Budget)
    requests: int = 0
    shed: int = 0
    told_requests: int = 0
    told_shed: int = 0
    """What was reported before."""
    policy: EdgePolicy | None = None
    """Whose limits the queue has."""


class Placement(msgspec.Struct, frozen=True, gc=False):
    """A request that may run now: one attempt."""

    pool: str
    ticket: Ticket
    route: Route
    started_s: float
    among: Sequence[Candidate]
    health: Health = Health.WELL
    """Of the replica when it came, as far as others could tell."""
    at_home: bool | None = None
    """Whether this replica is the home of the request's key; None if it has no key."""


class Dispatch:
    """All pools and replicas of one edge."""

    def __init__(self, table: RoutingTable, dice: Dice) -> None:
        self._table = table
        self._dice = dice
        self._replicas: dict[str, ReplicaState] = {}
        self._pools: dict[str, PoolState] = {}
        self.mode = Mode.NORMAL

    def work(self, pool: str, prompt_tokens: int, max_tokens: int | None) -> float:
        """What a request will cost, as far as can be told before."""
        return work(prompt_tokens, self.pool(pool).queue.pool.answer_tokens(max_tokens))

    def admit(self, pool: str, ticket: Ticket, now_s: float) -> Placement | None:
        """The straight way of a new request: nobody waits, and it can run. None: `offer` it."""
        state = self.pool(pool)
        if len(state.queue):
            return None
        candidates = self._fit(ticket, self._candidates(pool, now_s))
        replica, at_home = self._choose(state.queue, ticket, candidates)
        if replica is None or not state.queue.pass_by(ticket, now_s):
            return None
        state.requests += 1
        state.budget.deposit(now_s)
        health = self._start(replica, now_s)
        route = self._table.route(replica)
        return Placement(pool, ticket, route, now_s, candidates, health, at_home)

    def offer(self, pool: str, ticket: Ticket, now_s: float) -> Refusal | None:
        """A new request wants in; queued, or refused for want of room."""
        state = self.pool(pool)
        state.requests += 1
        refusal = state.queue.offer(
            ticket, now_s, self._dice, lambda: self._has_room(pool, ticket.adapter, now_s)
        )
        if refusal:
            state.shed += 1
        else:
            state.budget.deposit(now_s)
        return refusal

    def requeue(self, pool: str, ticket: Ticket) -> None:
        """A request comes back from a replica."""
        self.pool(pool).queue.requeue(ticket)

    def withdraw(self, pool: str, number: int) -> None:
        """A waiting request is gone."""
        self.pool(pool).queue.remove(number)

    def gives_up_s(self, pool: str, ticket: Ticket) -> float:
        """When a waiting request is to be expired."""
        return self.pool(pool).queue.gives_up_s(ticket)

    def expire(self, pool: str, ticket: Ticket, now_s: float) -> Refusal:
        """A waiting request has waited in vain."""
        state = self.pool(pool)
        refusal = state.queue.refusal(ticket, now_s, self._dice)
        state.queue.remove(ticket.number)
        state.shed += 1
        return refusal

    def has_open(self, pool: str, adapter: str = "") -> bool:
        """Whether any replica of the pool may get requests, now or after a moment of doubt."""
        routes = self._table.routes(pool)
        return any(route.serving is Serving.OPEN and has(route, adapter) for route in routes)

    def orphans(self) -> Iterator[tuple[str, Ticket]]:
        """Requests that wait for an adapter which no replica has any more, by pool."""
        for pool, state in self._pools.items():
            routes = self._table.routes(pool)
            for _, _, line in state.queue.lines():
                for ticket in line.tickets.values():
                    if ticket.adapter and not any(has(route, ticket.adapter) for route in routes):
                        yield pool, ticket

    def place(self, now_s: float) -> Iterator[Placement]:
        """Requests that can run now; each one yielded is counted in flight."""
        for name, state in self._pools.items():
            if len(state.queue):
                yield from self._place_pool(name, state.queue, now_s)

    def beside(self, placement: Placement, now_s: float) -> Placement | None:
        """A second attempt beside one under way, counted in flight, where there is idle room."""
        pool, ticket = placement.pool, placement.ticket
        queue = self.pool(pool).queue
        if len(queue) or ticket.only:
            return None
        used = {placement.route.replica, *ticket.tried}
        others = [c for c in self._candidates(pool, now_s) if c.replica not in used]
        candidates = self._fit(ticket, others)
        replica = pick([c for c in candidates if hedge.is_idle(c)], (), self._dice)
        if replica is None:
            return None
        queue.depart(ticket)  # charges for it
        health = self._start(replica, now_s)
        return Placement(pool, ticket, self._table.route(replica), now_s, candidates, health)

    def borrow(self, pool: str, ticket: Ticket, now_s: float) -> Placement | None:
        """The replica for a request that takes none of its slots: the least busy one."""
        routes = [route for route in self._table.routes(pool) if _may_ask(route, ticket)]
        fresh = [route for route in routes if route.replica not in ticket.tried] or routes
        route = min(fresh, key=lambda route: self._business(route.replica, now_s), default=None)
        return Placement(pool, ticket, route, now_s, ()) if route else None

    def began(self, placement: Placement, now_s: float) -> None:
        """The first data of a stream came."""
        state = self.replica(placement.route.replica)
        state.streaming.add(placement.ticket.number)
        state.witness.served_s = now_s
        state.lease.began(now_s - placement.started_s, state.inflight, now_s)

    def finish(
        self,
        placement: Placement,
        outcome: Outcome,
        now_s: float,
        tokens: int = 0,
        *,
        refused: bool = False,
    ) -> None:
        """An attempt ended so, after so many tokens; `refused`: nothing listened on its port."""
        state, ticket = self.replica(placement.route.replica), placement.ticket
        streamed = ticket.number in state.streaming
        if outcome is Outcome.OK and tokens and not streamed:
            state.lease.ended(now_s - placement.started_s, tokens, state.inflight, now_s)
        state.streaming.discard(ticket.number)
        state.inflight -= 1
        state.refused += refused
        if refused:
            state.lease.gone()
        state.tally.ended(outcome, placement.started_s, now_s)
        state.outcomes[outcome] += 1
        state.suspicion.observe(outcome, now_s)
        state.witness.observe(outcome, now_s)
        if outcome is Outcome.OVERLOAD:
            state.lease.refused(now_s)
            state.full_at, state.full_until_s = state.inflight, now_s + PUSH_BACK_S
        queue = self.pool(placement.pool).queue
        queue.settle(ticket, work(ticket.prompt_tokens, tokens) if tokens else 0.0)
        if outcome is Outcome.OK:
            queue.pool.ended()

    def strike(self, placement: Placement, failure: Failure) -> Way | None:
        """What an attempt that failed before its first byte says against its prompt."""
        served_s = self.replica(placement.route.replica).witness.served_s
        return strike(failure, placement.health, placement.started_s, served_s)

    def streamed(
        self, tokens: Mapping[tuple[str, str], int], elapsed_s: float, now_s: float
    ) -> None:
        """So many tokens came since the last call, by pool and replica."""
        pools: defaultdict[str, int] = defaultdict(int)
        for (pool, replica), count in tokens.items():
            pools[pool] += count
            state = self.replica(replica)
            state.tokens += count
            if count > 0:
                state.witness.served_s = now_s
        for pool, count in pools.items():
            queue = self.pool(pool).queue
            queue.pool.streamed(count, elapsed_s, standing=len(queue) > 0)

    def wait(self, asked_s: Mapping[str, float]) -> None:
        """Since when attempts wait that got nothing yet; it is one wait as long as any does."""
        for name, state in self._replicas.items():
            since_s = asked_s.get(name)
            state.unanswered_s = since_s and min(since_s, state.unanswered_s or since_s)

    def pool(self, name: str) -> PoolState:
        """The pool's accounting, with the limits of the newest policy."""
        state = self._pools.get(name)
        if state is None:
            queue = Queue(0, part_of=partial(self._part_of, name))
            state = self._pools[name] = PoolState(queue)
        policy = self._table.snapshot.policy
        if policy is not state.policy:
            state.policy = policy
            state.queue.limit = policy.queue_limit
            state.queue.budgets.long_s = policy.queue_wait_ms / 1000
        return state

    def queues(self) -> Iterator[tuple[str, Queue]]:
        """Who waits, by pool."""
        return ((name, state.queue) for name, state in self._pools.items())

    def replica(self, name: str) -> ReplicaState:
        """The replica's accounting."""
        state = self._replicas.get(name)
        if state is None:
            state = self._replicas[name] = ReplicaState()
        return state

    def enter(self, mode: Mode) -> None:
        """Who rules has changed; own room lasts until there are credits again."""
        self.mode = mode
        if mode is Mode.AUTONOMOUS:
            for credit in self._table.credits.values():
                self.replica(credit.replica).lease.take_over(credit.slots, credit.limit_slots)

    def hear(self, now_s: float) -> None:
        """The leader has told credits, and what whole pools do."""
        for state in self._replicas.values():
            state.lease.give_back()
        for pace in self._table.paces:
            queue = self.pool(pace.pool).queue
            queue.pool.hear(pace, self._table.term, queue.shares, now_s)

    def resize(self) -> None:
        """The table changed: fit the budgets to it, forget what is gone and idle."""
        slots = max((credit.slots for credit in self._table.credits.values()), default=0)
        for state in self._pools.values():
            state.budget.resize(slots)
        known = {route.replica for route in self._table.snapshot.routes}
        for name in [n for n, s in self._replicas.items() if n not in known and not s.inflight]:
            del self._replicas[name]
        pools = {pool.name for pool in self._table.snapshot.pools}
        for name in [n for n, s in self._pools.items() if n not in pools and not len(s.queue)]:
            del self._pools[name]

    def pools(self) -> Mapping[str, PoolState]:
        """All pools that were asked for, to be read."""
        return self._pools

    def totals(self) -> tuple[int, int]:
        """Attempts in flight and requests waiting, over everything."""
        inflight = sum(state.inflight for state in self._replicas.values())
        return inflight, sum(len(state.queue) for state in self._pools.values())

    def report_replicas(self, now_s: float) -> tuple[ReplicaUse, ...]:
        """What happened on each replica since the last call; idle ones are left out."""
        uses_ = (self._use(route.replica, now_s) for route in self._table.snapshot.routes)
        return tuple(use for use in uses_ if use != ReplicaUse(use.replica))

    def report_pools(self, now_s: float) -> tuple[PoolUse, ...]:
        """What happened in each pool since the last call, and who waits."""
        found = []
        for name, state in self._pools.items():
            tenants = uses.tenants(state.queue, now_s)
            oldest_ms = max((use.ages_ms[0] for use in tenants if use.ages_ms), default=0)
            queued = len(state.queue)
            found.append(
                PoolUse(name, queued, oldest_ms, state.requests, state.shed, tenants=tenants)
            )
            state.told_requests += state.requests
            state.told_shed += state.shed
            state.requests = state.shed = 0
        return tuple(found)

    def _place_pool(self, pool: str, queue: Queue, now_s: float) -> Iterator[Placement]:
        placed = True
        while placed and len(queue):
            placed = False
            candidates = self._candidates(pool, now_s)
            roomy = [self._table.route(c.replica) for c in candidates if c.has_room]
            free = {name for route in roomy for name in (route.replica, *route.adapters)}
            for ticket in queue.head(LOOK_AHEAD, now_s, free) if roomy else ():
                fit = self._fit(ticket, candidates)
                replica, at_home = self._choose(queue, ticket, fit)
                if replica is not None:
                    queue.depart(ticket)
                    health = self._start(replica, now_s)
                    route = self._table.route(replica)
                    yield Placement(pool, ticket, route, now_s, fit, health, at_home)
                    placed = True
                    break

    def _business(self, replica: str, now_s: float) -> tuple[bool, int]:
        state = self.replica(replica)
        return state.suspicion.active(now_s), state.inflight

    def _choose(
        self, queue: Queue, ticket: Ticket, candidates: list[Candidate]
    ) -> tuple[str | None, bool | None]:
        """The replica, if any, and whether the ticket is at home there."""
        if ticket.only:
            return pick([c for c in candidates if c.replica == ticket.only], (), self._dice), True
        if not ticket.affinity:
            return pick(candidates, ticket.tried, self._dice), None
        fresh = [c for c in candidates if c.replica not in ticket.tried]
        homes = affinity.order(ticket.affinity, fresh)
        gain = affinity.gain_slots(ticket.prompt_tokens, queue.pool.answer_tokens(None))
        taken = affinity.take(homes, fresh, gain)
        replica = taken.replica if taken else pick(candidates, ticket.tried, self._dice)
        return replica, bool(homes) and homes[0].replica == replica

    def _start(self, replica: str, now_s: float) -> Health:
        """Count an attempt in; how the replica was before."""
        state = self.replica(replica)
        health = state.witness.health(now_s, streaming=bool(state.streaming))
        state.inflight += 1
        state.dispatched += 1
        state.started += 1
        state.tally.started(now_s)
        return health

    def _part_of(self, pool: str, adapter: str) -> float:
        slots = having = 0
        for route in self._table.routes(pool):
            credit = self._table.credits.get(route.replica)
            if credit is not None and route.serving is Serving.OPEN:
                most = max(credit.slots, credit.limit_slots)  # this edge's own may be none just now
                slots += most
                having += most if has(route, adapter) else 0
        return having / slots if slots else 1.0

    def _has_room(self, pool: str, adapter: str, now_s: float) -> bool:
        candidates = self._candidates(pool, now_s)
        return any(c.has_room and has(self._table.route(c.replica), adapter) for c in candidates)

    def _candidates(self, pool: str, now_s: float) -> list[Candidate]:
        """The replicas that may get requests now; the others are no home for a while."""
        found = []
        credits_, states = self._table.credits, self._replicas
        for route in self._table.routes(pool):
            name = route.replica
            state = states.get(name) or self.replica(name)
            is_open = route.serving is Serving.OPEN and now_s >= state.suspicion.until_s
            if not is_open or route.breaker not in SETTLED:
                state.unsettled_until_s = now_s + affinity.AWAY_S
            credit = credits_.get(name)
            if is_open and credit is not None:
                found.append(self._candidate(credit, state, now_s))
        return found

    def _candidate(self, credit: Credit, state: ReplicaState, now_s: float) -> Candidate:
        age_ms = credit.report_age_ms
        fresh = age_ms is not None and age_ms <= REPORT_FRESH_MS
        fresh = fresh and self.mode is not Mode.AUTONOMOUS  # it was, when it was pushed
        return Candidate(
            credit.replica,
            state.room(credit.slots, now_s),
            state.inflight,
            (credit.waiting or 0) if fresh else 0,
            state.suspicion.penalty_slots(now_s) if state.suspicion.aversion_slots else 0.0,
            credit.weight or credit.slots,
            now_s >= state.unsettled_until_s,
            1.0 if credit.share is None else credit.share,
        )

    def _fit(self, ticket: Ticket, candidates: list[Candidate]) -> list[Candidate]:
        """Those of the candidates that have what a request needs."""
        if not ticket.adapter:
            return candidates
        route = self._table.route
        return [c for c in candidates if has(route(c.replica), ticket.adapter)]

    def _use(self, name: str, now_s: float) -> ReplicaUse:
        state = self.replica(name)
        use = ReplicaUse(
            replica=name,
            inflight=state.inflight,
            dispatched=state.dispatched,
            outcomes=tuple(OutcomeCount(o, n) for o, n in sorted(state.outcomes.items())),
            suspect=state.suspicion.active(now_s),
            cohorts=state.tally.report(now_s),
            refused=state.refused,
            tokens=state.tokens,
            unanswered_ms=uses.unanswered_ms(state.unanswered_s, state.witness.served_s, now_s),
        )
        state.dispatched = state.refused = state.tokens = 0
        state.outcomes.clear()
        return use


def _may_ask(route: Route, ticket: Ticket) -> bool:
    """Whether a cheap request may go there; what only one has may be asked for while it drains."""
    if ticket.only:
        return route.replica == ticket.only and route.serving is not Serving.LOST
    return route.serving is Serving.OPEN and has(route, ticket.adapter)


def with_tried(ticket: Ticket, tried: set[str]) -> Ticket:
    """The same request, now known to have failed on these replicas."""
    return msgspec.structs.replace(ticket, tried=frozenset(tried))

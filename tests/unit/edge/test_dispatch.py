"""edge/core/dispatch: every request in one place, no replica beyond its credit, oldest first."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.core.dispatch import Dispatch, Placement
from edge.core.table import RoutingTable
from trimtab.model import (
    BreakerState,
    Cohort,
    Credit,
    Credits,
    EdgePolicy,
    EdgeUpdate,
    Elsewhere,
    Outcome,
    OutcomeCount,
    Pool,
    PoolPace,
    Route,
    Serving,
    Snapshot,
)
from trimtab.policy import affinity
from trimtab.policy.autonomy import MEMORY, Mode
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.poison import Way
from trimtab.policy.queue import Ticket

POOL = "m"


class Fleet:
    """A dispatch with a table that a test can change."""

    def __init__(self, slots: dict[str, int], queue_limit: int = 100) -> None:
        self.table = RoutingTable()
        self.dispatch = Dispatch(self.table, random.Random(0))
        self.serving = dict.fromkeys(slots, Serving.OPEN)
        self.breakers: dict[str, BreakerState] = {}
        self.slots = slots
        self.limit_slots = 0
        self.waiting = 0
        self.policy = EdgePolicy(queue_limit=queue_limit)
        self.version = 0
        self.placed: list[Placement] = []
        self.push()

    def push(self) -> None:
        breakers = {name: self.breakers.get(name, BreakerState.HEALTHY) for name in self.serving}
        routes = tuple(
            Route(n, POOL, "n", "u", "m", s, breaker=breakers[n]) for n, s in self.serving.items()
        )
        for body in (
            Snapshot((Pool(POOL),), routes, (), self.policy),
            self.credits(),
        ):
            self.version += 1
            assert self.table.apply(EdgeUpdate(1, self.version, 0, body)) == ""
        self.dispatch.resize()

    def credits(self, *paces: PoolPace) -> Credits:
        found = (
            Credit(name, slots, 0.0, 0, self.waiting, 0, self.limit_slots)
            for name, slots in self.slots.items()
        )
        return Credits(tuple(found), paces)

    def hear(self, pace: PoolPace, now_s: float) -> None:
        self.version += 1
        body = self.credits(pace)
        assert self.table.apply(EdgeUpdate(1, self.version, 0, body)) == ""
        self.dispatch.hear(now_s)

    def offer(self, number: int, now_s: float = 0.0) -> list[Placement]:
        assert self.dispatch.offer(POOL, Ticket(number, now_s), now_s) is None
        return self.place(now_s)

    def place(self, now_s: float) -> list[Placement]:
        placed = list(self.dispatch.place(now_s))
        self.placed += placed
        return placed

    def finish(
        self,
        replica: str,
        outcome: Outcome,
        now_s: float,
        *,
        number: int | None = None,
        tokens: int = 0,
        refused: bool = False,
    ) -> None:
        """End the oldest attempt on the replica, or that of this request."""
        ended = next(
            placement
            for placement in self.placed
            if placement.route.replica == replica and number in {None, placement.ticket.number}
        )
        self.placed.remove(ended)
        self.dispatch.finish(ended, outcome, now_s, tokens, refused=refused)


def test_requests_spread_over_replicas_up_to_their_slots_and_then_wait() -> None:
    fleet = Fleet({"a": 2, "b": 2})
    placed = [p.route.replica for n in range(6) for p in fleet.offer(n)]
    assert sorted(placed) == ["a", "a", "b", "b"]
    assert fleet.dispatch.totals() == (4, 2)
    fleet.finish("a", Outcome.OK, 1.0)
    assert [(p.ticket.number, p.route.replica) for p in fleet.place(1.0)] == [(4, "a")]


def test_a_closed_replica_gets_nothing_new() -> None:
    fleet = Fleet({"a": 2, "b": 2})
    fleet.serving["a"] = Serving.CLOSED
    fleet.push()
    assert [p.route.replica for n in range(4) for p in fleet.offer(n)] == ["b", "b"]
    assert fleet.dispatch.has_open(POOL)
    fleet.serving["b"] = Serving.LOST
    fleet.push()
    assert not fleet.dispatch.has_open(POOL)


def test_outcomes_are_told_by_when_their_attempt_started() -> None:
    fleet = Fleet({"a": 3})
    for number, now_s in enumerate((10.2, 10.7, 11.0)):
        fleet.offer(number, now_s)
    fleet.finish("a", Outcome.SOFT, 12.0, number=1)
    fleet.finish("a", Outcome.HARD, 12.0, number=2, refused=True)
    (use,) = fleet.dispatch.report_replicas(12.0)
    assert use.refused == 1
    assert use.cohorts == (
        Cohort(2000, 2, (OutcomeCount(Outcome.SOFT, 1),)),
        Cohort(1000, 1, (OutcomeCount(Outcome.HARD, 1),)),
    )
    (quiet,) = fleet.dispatch.report_replicas(13.0)
    assert (quiet.refused, quiet.cohorts) == (0, ())


def test_a_doubted_replica_is_avoided_until_the_doubt_expires() -> None:
    fleet = Fleet({"a": 4})
    assert len(fleet.offer(1)) == 1
    fleet.finish("a", Outcome.HARD, 0.0)
    assert fleet.offer(2) == []
    assert [p.ticket.number for p in fleet.place(2.0)] == [2]


def alone(fleet: Fleet, limit_slots: int, now_s: float = 0.0) -> None:
    """Teach the edge what is normal, then take the control plane away."""
    fleet.limit_slots = limit_slots
    fleet.push()
    for number in range(1_000, 1_000 + int(MEMORY)):
        (placed,) = fleet.offer(number, now_s)
        fleet.dispatch.began(placed, now_s + 0.1)
        fleet.finish(placed.route.replica, Outcome.OK, now_s + 1.0, number=number)
    fleet.dispatch.enter(Mode.AUTONOMOUS)


def test_alone_an_edge_takes_more_while_first_bytes_come_in_time() -> None:
    fleet = Fleet({"a": 2})
    alone(fleet, 4)
    started = [p for number in range(8) for p in fleet.offer(number, 2.0)]
    assert len(started) == 2
    for now_s in (3.0, 4.0):
        for placement in started[-2:]:
            fleet.dispatch.began(placement, placement.started_s + 0.1)
        started += fleet.place(now_s)
    assert len(started) == 4, "no more than all edges together had"
    fleet.slots = {"a": 3}
    fleet.hear(PoolPace(POOL), 5.0)
    fleet.dispatch.enter(Mode.NORMAL)
    for number in (0, 1):
        fleet.finish("a", Outcome.OK, 6.0, number=number)
    assert len(fleet.place(6.0)) == 1, "the control plane's word counts again"


def test_own_room_lasts_until_there_are_credits_not_only_routes() -> None:
    fleet = Fleet({"a": 2})
    alone(fleet, 4)
    for placement in [p for number in (0, 1) for p in fleet.offer(number, 2.0)]:
        fleet.dispatch.began(placement, 2.1)
    fleet.dispatch.enter(Mode.NORMAL)
    fleet.push()
    assert len([p for number in range(2, 8) for p in fleet.offer(number, 3.0)]) == 1


def test_alone_a_replica_that_nothing_listens_on_comes_back_small() -> None:
    fleet = Fleet({"a": 20})
    alone(fleet, 20)
    fleet.offer(0, 2.0)
    fleet.finish("a", Outcome.HARD, 2.0, refused=True)
    assert len([p for number in range(1, 20) for p in fleet.offer(number, 5.0)]) == 4


def test_alone_the_only_replica_is_used_again_when_the_doubt_is_over() -> None:
    fleet = Fleet({"a": 4})
    alone(fleet, 4)
    now_s = 2.0
    for number in range(5):
        fleet.offer(number, now_s)
        fleet.finish("a", Outcome.HARD, now_s)
        now_s += 10.0
    assert [p.ticket.number for p in fleet.offer(9, now_s)] == [9]


def test_alone_what_engines_said_of_their_queues_is_forgotten() -> None:
    fleet = Fleet({"a": 10, "b": 10})
    fleet.waiting = 5
    fleet.push()
    fleet.dispatch.enter(Mode.AUTONOMOUS)
    placed = fleet.offer(1, 0.0)
    assert {c.waiting for placement in placed for c in placement.among} == {0}


def test_a_strike_needs_a_replica_that_served_others() -> None:
    fleet = Fleet({"a": 8})
    cut = Failure(Fault.CUT)
    (first,) = fleet.offer(1, 1.0)
    assert fleet.dispatch.strike(first, cut) is Way.DIED
    (second,) = fleet.offer(2, 1.0)
    fleet.finish("a", Outcome.SOFT, 1.5, number=1)
    assert fleet.dispatch.strike(second, cut) is Way.DIED, "it came before the first sign"
    (third,) = fleet.offer(3, 2.0)
    assert fleet.dispatch.strike(third, cut) is None
    fleet.dispatch.began(third, 2.5)
    (fourth,) = fleet.offer(4, 3.0)
    assert fleet.dispatch.strike(fourth, cut) is Way.DIED
    (late,) = fleet.offer(5, 6.0)
    assert fleet.dispatch.strike(late, cut) is None, "the stream under way stands still"
    fleet.dispatch.streamed({(POOL, "a"): 1}, 0.25, 6.0)
    (again,) = fleet.offer(6, 6.5)
    assert fleet.dispatch.strike(again, cut) is Way.DIED


def test_a_replica_that_says_no_room_gets_no_more_than_it_had_for_a_moment() -> None:
    fleet = Fleet({"a": 8})
    for number in range(3):
        fleet.offer(number)
    fleet.finish("a", Outcome.OVERLOAD, 0.0)
    fleet.dispatch.requeue(POOL, Ticket(2, 0.0))
    assert fleet.place(0.0) == []
    fleet.finish("a", Outcome.OK, 0.5)
    assert [p.ticket.number for p in fleet.place(0.5)] == [2]
    fleet.finish("a", Outcome.OVERLOAD, 0.6)
    fleet.dispatch.requeue(POOL, Ticket(2, 0.0))
    assert fleet.place(1.5) == []
    assert [p.ticket.number for p in fleet.place(1.7)] == [2]


def test_a_request_that_failed_somewhere_goes_elsewhere_and_keeps_its_age() -> None:
    fleet = Fleet({"a": 1, "b": 1})
    assert len(fleet.offer(1) + fleet.offer(2)) == 2
    assert fleet.offer(3) == []
    fleet.finish("a", Outcome.SOFT, 0.0)
    fleet.dispatch.requeue(POOL, Ticket(1, 0.0, tried=frozenset({"a"})))
    # 1 is at the head but only a, where it failed, is free: 3 takes it, 1 waits for b
    assert [(p.ticket.number, p.route.replica) for p in fleet.place(0.0)] == [(3, "a")]
    fleet.finish("b", Outcome.OK, 0.0)
    assert [(p.ticket.number, p.route.replica) for p in fleet.place(0.0)] == [(1, "b")]


def home_of(fleet: Fleet, key: bytes, now_s: float) -> tuple[str, bool | None]:
    """Where a request with this key goes in an idle fleet, and whether that is its home."""
    number = int(now_s * 1000) + 1
    ticket = Ticket(number, now_s, affinity=key)
    assert fleet.dispatch.offer(POOL, ticket, now_s) is None
    (placement,) = fleet.place(now_s)
    fleet.finish(placement.route.replica, Outcome.OK, now_s)
    return placement.route.replica, placement.at_home


def test_a_key_has_its_home_and_keys_are_spread() -> None:
    fleet = Fleet({"a": 4, "b": 4})
    keys = [affinity.key(bytes([n])) for n in range(16)]
    first = [home_of(fleet, key, 1.0) for key in keys]
    assert first == [home_of(fleet, key, 2.0) for key in keys]
    assert set(first) == {("a", True), ("b", True)}
    assert home_of(fleet, b"", 3.0)[1] is None


@pytest.mark.parametrize(
    ("serving", "breaker"),
    [
        (Serving.CLOSED, BreakerState.HEALTHY),
        (Serving.LOST, BreakerState.EJECTED),
        (Serving.OPEN, BreakerState.RAMPING),
        (Serving.OPEN, BreakerState.DEGRADED),
    ],
)
def test_a_home_that_is_not_well_is_left_at_once_and_for_a_while(
    serving: Serving, breaker: BreakerState
) -> None:
    fleet = Fleet({"a": 4, "b": 4})
    key = affinity.key(b"s")
    home, _ = home_of(fleet, key, 1.0)
    other = ({"a", "b"} - {home}).pop()
    fleet.serving[home], fleet.breakers[home] = serving, breaker
    fleet.push()
    assert home_of(fleet, key, 2.0) == (other, True)  # its home for as long
    fleet.serving[home], fleet.breakers[home] = Serving.OPEN, BreakerState.HEALTHY
    fleet.push()
    assert home_of(fleet, key, 61.9) == (other, True)
    assert home_of(fleet, key, 62.0) == (home, True)


def test_a_request_that_failed_at_home_goes_elsewhere() -> None:
    fleet = Fleet({"a": 4, "b": 4})
    key = affinity.key(b"s")
    home, _ = home_of(fleet, key, 1.0)
    fleet.dispatch.requeue(POOL, Ticket(1, 1.0, tried=frozenset({home}), affinity=key))
    (placement,) = fleet.place(1.0)
    assert placement.route.replica != home


def test_reports_count_what_happened_since_the_last_one() -> None:
    fleet = Fleet({"a": 1})
    fleet.offer(1)
    fleet.offer(2)
    fleet.finish("a", Outcome.OVERLOAD, 1.0)
    (use,) = fleet.dispatch.report_replicas(1.0)
    assert (use.replica, use.dispatched, use.inflight) == ("a", 1, 0)
    assert [(o.outcome, o.count) for o in use.outcomes] == [(Outcome.OVERLOAD, 1)]
    (pool,) = fleet.dispatch.report_pools(3.0)
    assert (pool.requests, pool.queued, pool.oldest_wait_ms) == (2, 1, 3000)
    assert fleet.dispatch.report_replicas(1.0) == (), "told once, and idle now"


def test_what_was_charged_is_corrected_when_the_truth_is_known() -> None:
    fleet = Fleet({"a": 2})
    guess = fleet.dispatch.work(POOL, prompt_tokens=1000, max_tokens=100)
    assert guess == pytest.approx(142.0)
    for number, tenant in enumerate(("long", "none")):
        ticket = Ticket(number, 0.0, work=guess, prompt_tokens=1000, tenant=tenant)
        assert fleet.dispatch.offer(POOL, ticket, 0.0) is None
    fleet.place(0.0)
    assert charged(fleet) == {"long": guess, "none": guess}
    fleet.finish("a", Outcome.OK, 9.0, number=0, tokens=900)
    fleet.finish("a", Outcome.OVERLOAD, 9.0, number=1)
    assert charged(fleet) == pytest.approx({"long": 800.0, "none": -guess})
    assert charged(fleet) == {}


def charged(fleet: Fleet) -> dict[str, float]:
    """Work charged since the last report, by tenant."""
    (pool,) = fleet.dispatch.report_pools(10.0)
    return {use.tenant: use.charged_work for use in pool.tenants}


def test_the_leaders_pace_decides_who_is_refused_but_free_room_is_used() -> None:
    fleet = Fleet({"a": 1})
    fleet.hear(PoolPace(POOL, 10.0, (Elsewhere("t", queued_work=10_000.0),)), 0.0)
    late = Ticket(1, 0.0, tenant="t")
    assert fleet.dispatch.offer(POOL, late, 0.0) is None, "a is free"
    fleet.place(0.0)
    refusal = fleet.dispatch.offer(POOL, Ticket(2, 0.0, tenant="t"), 0.0)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(1_000.0)
    assert fleet.dispatch.offer(POOL, Ticket(3, 0.0, tenant="light"), 0.0) is None
    fleet.hear(PoolPace(POOL, 10.0, ()), 0.5)
    assert fleet.dispatch.offer(POOL, Ticket(4, 0.0, tenant="t"), 0.5) is None


def test_the_edges_own_streams_tell_the_pace_when_the_leader_does_not() -> None:
    fleet = Fleet({"a": 1})
    fleet.offer(1)
    fleet.offer(2)
    for _ in range(20):
        fleet.dispatch.streamed({(POOL, "a"): 20, (POOL, "b"): 5}, 0.25, 0.0)
    queue = fleet.dispatch.pool(POOL).queue
    assert queue.pool.work_per_s(0.0) == pytest.approx(100.0)


def test_tokens_are_reported_by_replica_once() -> None:
    fleet = Fleet({"a": 1, "b": 1})
    fleet.dispatch.streamed({(POOL, "a"): 20}, 0.25, 0.0)
    fleet.dispatch.streamed({(POOL, "a"): 3, (POOL, "b"): 0}, 0.25, 0.0)
    reports = [{u.replica: u.tokens for u in fleet.dispatch.report_replicas(0.0)} for _ in "12"]
    assert reports == [{"a": 23}, {}], "and what is idle is left out"


def test_what_is_gone_and_idle_is_forgotten() -> None:
    fleet = Fleet({"a": 1, "b": 1})
    fleet.offer(1)
    fleet.offer(2)
    fleet.finish("b", Outcome.OK, 0.0)
    del fleet.serving["a"], fleet.serving["b"]
    fleet.push()
    assert fleet.dispatch.totals() == (1, 0)
    fleet.finish("a", Outcome.OK, 0.0)
    fleet.push()
    assert fleet.dispatch.totals() == (0, 0)


def test_credits_that_shrink_below_what_runs_stop_new_requests_only() -> None:
    fleet = Fleet({"a": 3})
    for number in range(3):
        fleet.offer(number)
    fleet.slots["a"] = 1
    fleet.push()
    assert fleet.offer(9) == []
    fleet.finish("a", Outcome.OK, 0.0)
    assert fleet.place(0.0) == []


class DispatchMachine(RuleBasedStateMachine):
    """I18: in any order of events, each request is waiting, running, or over; counts agree."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet({"a": 2, "b": 1}, queue_limit=4)
        self.running: dict[int, str] = {}
        self.waiting: set[int] = set()
        self.now_s = 0.0
        self.next = 0

    def _place(self) -> None:
        for placement in self.fleet.place(self.now_s):
            self.waiting.remove(placement.ticket.number)
            self.running[placement.ticket.number] = placement.route.replica
            assert self.fleet.serving[placement.route.replica] is Serving.OPEN

    @rule(gap_s=st.floats(0, 5))
    def arrive(self, gap_s: float) -> None:
        self.now_s += gap_s
        self.next += 1
        key = affinity.key(bytes([self.next % 8])) if self.next % 2 else b""
        ticket = Ticket(self.next, self.now_s, affinity=key)
        if self.fleet.dispatch.offer(POOL, ticket, self.now_s) is None:
            self.waiting.add(self.next)
        self._place()

    @precondition(lambda self: self.running)
    @rule(outcome=st.sampled_from(sorted(set(Outcome) - {Outcome.UNSPECIFIED})))
    def end(self, outcome: Outcome) -> None:
        number, replica = self.running.popitem()
        self.fleet.finish(replica, outcome, self.now_s, number=number)
        self._place()

    @precondition(lambda self: self.running)
    @rule()
    def fail_over(self) -> None:
        number, replica = self.running.popitem()
        self.fleet.finish(replica, Outcome.HARD, self.now_s, number=number)
        ticket = Ticket(number, self.now_s, tried=frozenset({replica}))
        self.fleet.dispatch.requeue(POOL, ticket)
        self.waiting.add(number)
        self._place()

    @precondition(lambda self: self.waiting)
    @rule()
    def leave(self) -> None:
        self.fleet.dispatch.withdraw(POOL, self.waiting.pop())

    @rule(
        replica=st.sampled_from("ab"),
        serving=st.sampled_from([Serving.OPEN, Serving.CLOSED, Serving.LOST]),
        slots=st.integers(0, 3),
    )
    def push(self, replica: str, serving: Serving, slots: int) -> None:
        self.fleet.serving[replica] = serving
        self.fleet.slots[replica] = slots
        self.fleet.push()
        running = list(self.running.values()).count(replica)
        self._place()
        assert list(self.running.values()).count(replica) <= max(slots, running)

    @invariant()
    def counts_agree(self) -> None:
        assert self.fleet.dispatch.totals() == (len(self.running), len(self.waiting))


TestDispatchMachine = DispatchMachine.TestCase


def test_nothing_of_a_replica_is_told_while_somebody_waits() -> None:
    fleet = Fleet({"a": 2})
    fleet.offer(1, 10.0)

    def told(now_s: float, asked_s: float | None = None) -> int:
        fleet.dispatch.wait({} if asked_s is None else {"a": asked_s})
        return sum(use.unanswered_ms for use in fleet.dispatch.report_replicas(now_s))

    assert told(12.9, 10.0) == 0, "that may be a prefill"
    assert told(13.0, 10.0) == 3000
    assert told(16.0, 15.5) == 6000, "one who left is followed by another"
    assert told(17.0) == 0, "nobody waits"
    assert told(20.0, 16.5) == 3500
    fleet.dispatch.streamed({(POOL, "a"): 1}, 0.25, 20.5)
    assert told(21.0, 16.5) == 0, "it works"
    assert told(24.0, 16.5) == 3500

"""policy/queue: bounded, fair, in order, honest about when to come back."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trimtab.model import Elsewhere, PoolPace, Urgency
from trimtab.policy.queue import (
    PATIENCE_RATIO,
    RETRY_AFTER_MAX_S,
    RETRY_AFTER_MIN_S,
    Queue,
    Refusal,
    Ticket,
)

DICE = random.Random(0)
PACE = 10.0


def offer(
    queue: Queue, ticket: Ticket, now_s: float = 0.0, *, room: bool = False
) -> Refusal | None:
    return queue.offer(ticket, now_s, DICE, lambda: room)


def filled(*tickets: Ticket, limit: int = 1000) -> Queue:
    queue = Queue(limit)
    for ticket in tickets:
        assert offer(queue, ticket, ticket.since_s) is None
    return queue


def paced(queue: Queue, now_s: float = 0.0, *elsewhere: Elsewhere) -> Queue:
    """The leader says that the pool does PACE."""
    queue.pool.hear(PoolPace("m", PACE, elsewhere), 1, queue.shares, now_s)
    return queue


def tickets(count: int, work: float = 1.0, tenant: str = "t", first: int = 0) -> list[Ticket]:
    return [Ticket(first + n, 0.0, work=work, tenant=tenant) for n in range(count)]


def served(queue: Queue, count: int, now_s: float = 0.0) -> list[Ticket]:
    """Who goes, one after another."""
    gone = []
    for _ in range(count):
        (ticket,) = queue.head(1, now_s)
        queue.depart(ticket)
        gone.append(ticket)
    return gone


# Order


def test_first_come_first_served() -> None:
    assert [t.number for t in filled(*tickets(3)).head(5, 0.0)] == [0, 1, 2]


def test_a_requeued_request_goes_to_the_head_even_when_full_and_keeps_its_age() -> None:
    queue = filled(*tickets(2), limit=2)
    (first,) = served(queue, 1)
    assert offer(queue, Ticket(9, 1.0, tenant="t"), 1.0) is None
    queue.settle(first, 0.0)
    queue.requeue(first)
    assert [t.number for t in queue.head(5, 1.0)] == [0, 1, 9]
    assert queue.shares.counters["t"] == 0.0, "an attempt that came to nothing costs nothing"


def test_tenants_take_turns_by_work_not_by_requests() -> None:
    queue = filled(*tickets(90, 10.0, "long"), *tickets(90, 1.0, "short", first=1000))
    gone = Counter(ticket.tenant for ticket in served(queue, 55))
    assert gone == {"short": 50, "long": 5}


def test_a_newcomer_is_served_next_however_long_the_others_line() -> None:
    queue = filled(*tickets(50, 10.0, "flood"))
    served(queue, 20)
    assert offer(queue, Ticket(99, 1.0, work=10.0, tenant="light"), 1.0) is None
    assert "light" in {ticket.tenant for ticket in served(queue, 2)}


def test_the_urgent_go_first_and_the_others_are_not_starved() -> None:
    """I17: a twentieth for those who wait behind."""
    urgent = [Ticket(n, 0.0, urgency=Urgency.CRITICAL) for n in range(400)]
    batch = [Ticket(1000 + n, 0.0, urgency=Urgency.BATCH) for n in range(400)]
    gone = Counter(ticket.urgency for ticket in served(filled(*batch, *urgent), 200))
    assert gone[Urgency.BATCH] == pytest.approx(200 * 0.05, abs=1)
    assert served(filled(*batch, *urgent), 1)[0].urgency is Urgency.CRITICAL


def test_who_was_passed_over_while_nobody_of_it_waited_earned_nothing() -> None:
    queue = filled(*(Ticket(n, 0.0, urgency=Urgency.CRITICAL) for n in range(200)))
    served(queue, 100)
    assert offer(queue, Ticket(999, 0.0, urgency=Urgency.BATCH)) is None
    assert {t.urgency for t in served(queue, 19)} == {Urgency.CRITICAL}


# Time


def test_nothing_is_dispatched_for_a_caller_who_has_left_by_then() -> None:
    """I15."""
    queue = filled(
        Ticket(1, 0.0, patience_s=10.0), Ticket(2, 0.0, patience_s=100.0), Ticket(3, 0.0)
    )
    ends_s = [queue.gives_up_s(ticket) for ticket in queue.head(3, 0.0)]
    assert ends_s == [PATIENCE_RATIO * 10.0, 45.0, 45.0]
    assert [t.number for t in queue.head(5, 7.4)] == [1, 2, 3]
    assert [t.number for t in queue.head(5, 7.5)] == [2, 3]
    assert len(queue) == 3, "it is its own timer's to refuse it"


def test_a_wait_is_all_the_work_before_it_over_the_pace() -> None:
    queue = paced(filled(*tickets(5, 30.0, "t")))
    assert queue.wait_s(Ticket(9, 0.0, tenant="t"), 0.0) == pytest.approx(15.0)
    queue = paced(queue, 0.0, Elsewhere("t", queued_work=50.0))
    assert queue.wait_s(Ticket(9, 0.0, tenant="t"), 0.0) == pytest.approx(20.0)


def test_a_wait_counts_of_others_only_what_takes_turns_with_it() -> None:
    queue = paced(filled(*tickets(5, 30.0, "flood"), *tickets(1, 20.0, "light", first=9)))
    assert queue.wait_s(Ticket(99, 0.0, tenant="light"), 0.0) == pytest.approx(4.0)
    assert queue.wait_s(Ticket(99, 0.0, tenant="flood"), 0.0) == pytest.approx(17.0)
    assert queue.wait_s(Ticket(99, 0.0, tenant="new"), 0.0) == 0.0


def test_a_wait_counts_the_urgent_and_not_the_patient() -> None:
    queue = paced(
        filled(
            Ticket(1, 0.0, work=30.0, urgency=Urgency.CRITICAL),
            Ticket(2, 0.0, work=40.0),
            Ticket(3, 0.0, work=50.0, urgency=Urgency.BATCH),
        )
    )
    waits = [queue.wait_s(Ticket(9, 0.0, urgency=u), 0.0) for u in sorted(Urgency)[1:]]
    assert waits == pytest.approx([3.0, 3.0, 7.0, 12.0])
    served(queue, 1)
    assert queue.wait_s(Ticket(9, 0.0), 0.0) > 4.0, "the urgent take a part of the pace, too"


def test_a_pace_next_to_nothing_divides() -> None:
    queue = paced(filled(*tickets(2, 30.0)))
    queue.depart(queue.head(1, 0.0)[0])
    queue.pool.hear(PoolPace("m", 5e-324), 1, queue.shares, 0.0)
    assert queue.wait_s(Ticket(9, 0.0, urgency=Urgency.BATCH), 0.0) == 0.0


def test_an_unknown_pace_refuses_nobody() -> None:
    queue = filled(*tickets(500, 1e6))
    assert offer(queue, Ticket(999, 0.0, patience_s=0.1, tenant="t")) is None


@pytest.mark.parametrize(
    ("ticket", "room", "refused"),
    [
        (Ticket(99, 0.0, tenant="t"), False, False),
        (Ticket(99, 0.0, tenant="t", patience_s=30.0), False, True),
        (Ticket(99, 0.0, tenant="t", patience_s=30.0), True, True),  # others wait for the room
        (Ticket(99, 0.0, tenant="t", urgency=Urgency.INTERACTIVE, patience_s=1.0), False, False),
        (Ticket(99, 0.0, tenant="new", patience_s=1.0), False, False),
    ],
)
def test_a_wait_beyond_the_budget_is_refused_at_once(
    ticket: Ticket, room: bool, refused: bool
) -> None:
    queue = paced(filled(*tickets(10, 30.0)))
    assert (offer(queue, ticket, room=room) is not None) == refused


def test_an_empty_queue_with_room_refuses_nobody() -> None:
    queue = paced(Queue(10), 0.0, Elsewhere("t", queued_work=1e6))
    assert offer(queue, Ticket(1, 0.0, tenant="t"), room=False) is not None
    assert offer(queue, Ticket(1, 0.0, tenant="t"), room=True) is None


def test_a_queue_that_stands_is_kept_short() -> None:
    """Twice what can be served, for minutes: long waits at first, short ones in the end."""
    queue, dice = Queue(1000), random.Random(4)
    waits: list[tuple[float, float]] = []
    for tenth in range(6000):
        now_s = tenth / 10
        paced(queue, now_s)
        if dice.random() < 0.2:
            ticket = Ticket(tenth, now_s, work=10.0, tenant="t")
            queue.offer(ticket, now_s, dice, lambda: False)
        if tenth % 10 == 0:  # PACE: one request a second
            for ticket in queue.head(1, now_s):
                queue.depart(ticket)
                waits.append((now_s, now_s - ticket.since_s))
    assert max(wait_s for at_s, wait_s in waits if at_s < 90.0) > 20.0
    late = [wait_s for at_s, wait_s in waits if at_s >= 200.0]
    assert len(late) == 400, "nor does it run empty"
    assert max(late) < 8.0


# Refusals


def test_a_full_queue_refuses() -> None:
    refusal = offer(filled(*tickets(2), limit=2), Ticket(7, 0.0, tenant="t"))
    assert refusal is not None
    assert refusal.queued == 2


def test_a_flood_leaves_room_for_others() -> None:
    """I16: who is within his share is not refused."""
    queue = Queue(90)
    taken = sum(offer(queue, ticket) is None for ticket in tickets(200, tenant="flood"))
    assert taken == 80
    assert offer(queue, Ticket(999, 0.0, tenant="light")) is None


def test_a_refusal_tells_the_excess() -> None:
    queue = paced(filled(*tickets(10, 100.0)))
    refusal = offer(queue, Ticket(99, 0.0, tenant="t"))
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(100.0)
    assert 56.0 <= refusal.retry_after_s <= 1.5 * 56.0


@given(st.floats(0, 1e6), st.floats(0.01, 1e4), st.floats(0, 600), st.integers())
def test_retry_after_is_between_one_and_ninety_seconds(
    work: float, pace: float, patience_s: float, seed: int
) -> None:
    queue = filled(*tickets(1, work))
    queue.pool.hear(PoolPace("m", pace), 1, queue.shares, 0.0)
    ticket = Ticket(9, 0.0, patience_s=patience_s, tenant="t")
    refusal = queue.refusal(ticket, 0.0, random.Random(seed))
    assert RETRY_AFTER_MIN_S <= refusal.retry_after_s <= 1.5 * RETRY_AFTER_MAX_S
    assert math.isfinite(refusal.wait_s)


def test_retry_after_is_spread() -> None:
    queue, dice = filled(*tickets(1)), random.Random(3)
    answers = [queue.refusal(Ticket(9, 0.0), 0.0, dice).retry_after_s for _ in range(200)]
    assert max(answers) - min(answers) > 0.4
    assert len({round(answer, 3) for answer in answers}) > 150


class QueueMachine(RuleBasedStateMachine):
    """Any order of events: a bounded set, each tenant's requests in order, sums that hold."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(limit=8)
        self.model: dict[str, list[Ticket]] = {tenant: [] for tenant in "abc"}
        self.departed: list[Ticket] = []
        self.now_s = 0.0
        self.next = 0

    @rule(
        gap_s=st.floats(0, 2),
        tenant=st.sampled_from("abc"),
        work=st.floats(0, 100),
        patience_s=st.sampled_from([1.0, 60.0, math.inf]),
    )
    def offer(self, gap_s: float, tenant: str, work: float, patience_s: float) -> None:
        self.now_s += gap_s
        self.next += 1
        urgency = {"a": Urgency.CRITICAL, "b": Urgency.DEFAULT, "c": Urgency.UNSPECIFIED}[tenant]
        ticket = Ticket(self.next, self.now_s, patience_s, work, 0, tenant, urgency)
        if offer(self.queue, ticket, self.now_s) is None:
            self.model[tenant].append(ticket)

    @rule(pace=st.none() | st.floats(0, 1000), work=st.floats(0, 1000), term=st.integers(1, 2))
    def hear(self, pace: float | None, work: float, term: int) -> None:
        word = PoolPace("m", pace, (Elsewhere("b", Urgency.DEFAULT, work, work),))
        self.queue.pool.hear(word, term, self.queue.shares, self.now_s)

    @rule()
    def depart(self) -> None:
        for ticket in self.queue.head(1, self.now_s):
            assert self.model[ticket.tenant][0].number <= ticket.number
            self.model[ticket.tenant].remove(ticket)
            self.queue.depart(ticket)
            self.departed.append(ticket)

    @precondition(lambda self: self.departed)
    @rule(done=st.floats(0, 200), again=st.booleans())
    def end(self, done: float, again: bool) -> None:
        ticket = self.departed.pop()
        self.queue.settle(ticket, done)
        if again:
            self.queue.requeue(ticket)
            self.model[ticket.tenant].insert(0, ticket)

    @precondition(lambda self: any(self.model.values()))
    @rule(index=st.integers(0, 100))
    def leave(self, index: int) -> None:
        waiting = [ticket for line in self.model.values() for ticket in line]
        ticket = waiting[index % len(waiting)]
        self.model[ticket.tenant].remove(ticket)
        self.queue.remove(ticket.number)
        self.queue.remove(ticket.number)

    @invariant()
    def agrees(self) -> None:
        lines = {tenant: line for _, tenant, line in self.queue.lines()}
        for tenant, expected in self.model.items():
            line = lines.get(tenant)
            assert list(line.tickets.values() if line else ()) == expected
            assert (line.work if line else 0.0) == pytest.approx(
                sum(ticket.work for ticket in expected), abs=1e-6
            )
        assert len(self.queue) == sum(len(line) for line in self.model.values())
        live = sum(
            self.now_s < self.queue.gives_up_s(ticket)
            for line in self.model.values()
            for ticket in line
        )
        assert len(self.queue.head(100, self.now_s)) == live
        assert all(math.isfinite(counter) for counter in self.queue.shares.counters.values())


TestQueueMachine = QueueMachine.TestCase


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Urgency)),
            st.sampled_from("abc"),
            st.floats(0.0, 50.0),
            st.floats(0.0, 3.0),
            st.booleans(),
        ),
        max_size=80,
    ),
    st.booleans(),
)
def test_who_passes_by_leaves_what_waiting_for_no_time_would(
    asked: list[tuple[Urgency, str, float, float, bool]], knows_pace: bool
) -> None:
    straight, queued = Queue(10), Queue(10)
    now_s = 0.0
    for number, (urgency, tenant, work, later_s, ends) in enumerate(asked):
        now_s += later_s
        ticket = Ticket(number, now_s, work=work, tenant=tenant, urgency=urgency)
        for queue in (straight, queued):
            if knows_pace and number % 7 == 0:
                paced(queue, now_s, Elsewhere("b", Urgency.DEFAULT, 5.0, number))
        assert straight.pass_by(ticket, now_s)
        assert offer(queued, ticket, now_s, room=True) is None
        assert queued.head(1, now_s) == [ticket]
        queued.depart(ticket)
        for queue in (straight, queued):
            if ends:
                queue.settle(ticket, work / 2)
        assert straight == queued


def test_nobody_passes_by_who_waits_nor_where_nobody_may() -> None:
    assert not filled(*tickets(1)).pass_by(Ticket(7, 0.0), 0.0)
    assert not Queue(0).pass_by(Ticket(7, 0.0), 0.0)

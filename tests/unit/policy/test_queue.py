"""policy/queue: bounded, in order, honest about when to come back."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trimtab.policy.queue import (
    RATE_TRUSTED_AFTER,
    RETRY_AFTER_MAX_S,
    RETRY_AFTER_MIN_S,
    Queue,
    Rate,
    Ticket,
)

DICE = random.Random(0)


def filled(count: int, limit: int = 1000) -> Queue:
    queue = Queue(limit)
    for number in range(count):
        assert queue.offer(Ticket(number, 0.0, 1e9), 0.0, DICE) is None
    return queue


def test_first_come_first_served() -> None:
    queue = filled(3)
    assert [t.number for t in queue.head(5)] == [0, 1, 2]


def test_a_requeued_request_goes_to_the_head_even_when_full() -> None:
    queue = filled(2, limit=2)
    queue.depart(0, 1.0)
    queue.offer(Ticket(9, 1.0, 10.0), 1.0, DICE)
    queue.requeue(Ticket(0, 0.0, 10.0))
    assert [t.number for t in queue.head(5)] == [0, 1, 9]
    assert queue.oldest_s(3.0) == 3.0


def test_a_full_queue_refuses() -> None:
    refusal = filled(2, limit=2).offer(Ticket(7, 0.0, 10.0), 0.0, DICE)
    assert refusal is not None
    assert refusal.queued == 2


def drained(queue: Queue, per_s: float, seconds: float) -> float:
    number, now_s = 10_000, 0.0
    while now_s < seconds:
        queue.requeue(Ticket(number, now_s, 1e9))
        queue.depart(number, now_s)
        number, now_s = number + 1, now_s + 1 / per_s
    return now_s


def test_a_wait_beyond_the_budget_is_refused_at_once_with_the_excess() -> None:
    queue = filled(40)
    now_s = drained(queue, per_s=2.0, seconds=60.0)
    assert 18.0 < queue.wait_s(now_s) < 22.0
    assert queue.offer(Ticket(1, now_s, 45.0), now_s, DICE) is None
    refusal = queue.offer(Ticket(2, now_s, 5.0), now_s, DICE)
    assert refusal is not None
    assert 15.0 < refusal.retry_after_s < 27.0


@given(st.integers(0, 500), st.floats(0.01, 100), st.floats(0, 600), st.integers())
def test_retry_after_is_between_one_and_ninety_seconds(
    waiting: int, per_s: float, budget_s: float, seed: int
) -> None:
    queue = filled(waiting)
    now_s = drained(queue, per_s, seconds=20.0)
    refusal = queue.refusal(now_s, budget_s, random.Random(seed))
    assert RETRY_AFTER_MIN_S <= refusal.retry_after_s <= 1.5 * RETRY_AFTER_MAX_S


def test_retry_after_is_spread() -> None:
    queue, dice = filled(1), random.Random(3)
    answers = [queue.refusal(0.0, 5.0, dice).retry_after_s for _ in range(200)]
    assert max(answers) - min(answers) > 0.4
    assert len({round(a, 3) for a in answers}) > 150


def test_a_young_rate_is_unbiased() -> None:
    rate = Rate()
    for i in range(21):
        rate.add(100.0 + i * 0.1)
    assert 8.0 < rate.per_s(102.0) < 12.0
    assert rate.per_s(200.0) < 0.1


def test_an_unknown_drain_rate_refuses_nobody() -> None:
    queue = filled(RATE_TRUSTED_AFTER - 1)
    for number in range(RATE_TRUSTED_AFTER - 1):
        queue.depart(number, 0.0)
    queue.requeue(Ticket(99, 0.0, 1.0))
    assert queue.offer(Ticket(100, 0.0, 0.001), 0.0, DICE) is None


class QueueMachine(RuleBasedStateMachine):
    """Any order of events: the queue is a bounded set in order of age, requeued ones first."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(limit=5)
        self.model: list[int] = []
        self.departed: list[int] = []
        self.now_s = 0.0
        self.next = 0

    @rule(gap_s=st.floats(0, 10), budget_s=st.floats(0, 60))
    def offer(self, gap_s: float, budget_s: float) -> None:
        self.now_s += gap_s
        self.next += 1
        refusal = self.queue.offer(Ticket(self.next, self.now_s, budget_s), self.now_s, DICE)
        if refusal is None:
            self.model.append(self.next)

    @precondition(lambda self: self.model)
    @rule(index=st.integers(0, 100))
    def depart(self, index: int) -> None:
        number = self.model.pop(index % len(self.model))
        self.queue.depart(number, self.now_s)
        self.departed.append(number)

    @precondition(lambda self: self.departed)
    @rule()
    def requeue(self) -> None:
        number = self.departed.pop()
        self.queue.requeue(Ticket(number, 0.0, 1.0))
        self.model.insert(0, number)

    @precondition(lambda self: self.model)
    @rule()
    def leave(self) -> None:
        self.queue.remove(self.model.pop())

    @invariant()
    def same_order(self) -> None:
        assert [t.number for t in self.queue.head(1000)] == self.model
        assert self.queue.wait_s(self.now_s) >= 0.0


TestQueueMachine = QueueMachine.TestCase

"""policy/retry: bounded, paid for, never for overload."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.policy.classify import Failure, Fault
from trimtab.policy.retry import (
    CONTINUATIONS_MAX,
    DEPOSIT_RATIO,
    DEPTH_MIN,
    REQUEUES_MAX,
    RESERVE_PER_S,
    RETRIES_MAX,
    STALE_MAX,
    Budget,
    History,
    Move,
    next_move,
)

BUSY = Failure(Fault.STATUS, 503)
FAILURES = st.sampled_from(
    [BUSY, *[Failure(fault, 500) for fault in Fault], Failure(Fault.STATUS, 400)]
)


def moves(failure: Failure, times: int, budget: Budget) -> list[Move]:
    history = History()
    return [next_move(history, failure, f"r{i}", budget, 0.0) for i in range(times)]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure(Fault.REFUSED), [Move.RETRY, Move.RETRY, Move.GIVE_UP]),
        (Failure(Fault.LOST), [Move.RETRY, Move.RETRY, Move.GIVE_UP]),
        (Failure(Fault.UNREACHABLE), [Move.RETRY, Move.RETRY, Move.GIVE_UP]),
        (Failure(Fault.STATUS, 500), [Move.RETRY, Move.GIVE_UP]),
        (Failure(Fault.CUT), [Move.RETRY, Move.GIVE_UP]),
        (BUSY, [Move.REQUEUE] * REQUEUES_MAX + [Move.GIVE_UP]),
        (Failure(Fault.STALE), [Move.REQUEUE, *[Move.RETRY] * RETRIES_MAX, Move.GIVE_UP]),
        (Failure(Fault.STATUS, 400), [Move.GIVE_UP]),
        (Failure(Fault.SILENT), [Move.GIVE_UP]),
        (Failure(Fault.CLIENT_GONE), [Move.GIVE_UP]),
    ],
)
def test_moves(failure: Failure, expected: list[Move]) -> None:
    assert moves(failure, len(expected), Budget()) == expected


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.LOST, Fault.SILENT, Fault.ABORTED])
def test_a_begun_answer_is_continued_three_times_and_pays_each_time(fault: Fault) -> None:
    budget, history = Budget(), History()
    found = [
        next_move(history, Failure(fault), f"r{i}", budget, 0.0, started=True) for i in range(5)
    ]
    assert found == [Move.RETRY] * CONTINUATIONS_MAX + [Move.GIVE_UP] * 2
    assert budget.tokens == DEPTH_MIN - CONTINUATIONS_MAX
    assert history.tried == {f"r{i}" for i in range(5)}
    assert next_move(History(), Failure(fault), "r0", Budget(0.0), 0.0, started=True) is (
        Move.GIVE_UP
    )
    gone = Failure(Fault.CLIENT_GONE)
    assert next_move(History(), gone, "r0", Budget(), 0.0, started=True) is Move.GIVE_UP


def test_overload_and_stale_connections_cost_no_budget_and_blame_nobody() -> None:
    budget, history = Budget(tokens=0.0), History()
    assert next_move(history, BUSY, "r0", budget, 0.0) is Move.REQUEUE
    assert next_move(history, Failure(Fault.STALE), "r0", budget, 0.0) is Move.REQUEUE
    assert history.tried == set()


def test_an_empty_budget_stops_retries_until_it_refills() -> None:
    budget = Budget(tokens=0.0)
    refused = Failure(Fault.REFUSED)
    assert next_move(History(), refused, "r0", budget, 0.0) is Move.GIVE_UP
    assert next_move(History(), refused, "r0", budget, 1.01 / RESERVE_PER_S) is Move.RETRY


def test_the_budget_is_as_deep_as_the_largest_replica() -> None:
    budget = Budget()
    budget.resize(256)
    assert sum(budget.withdraw(0.0) for _ in range(300)) == 256
    budget.resize(0)
    assert budget.depth == DEPTH_MIN
    assert budget.tokens <= DEPTH_MIN


@given(st.lists(FAILURES, max_size=30))
def test_a_request_never_makes_more_than_seven_attempts(failures: list[Failure]) -> None:
    history, budget, attempts = History(), Budget(), 1
    for failure in failures:
        if next_move(history, failure, "r", budget, 0.0) is Move.GIVE_UP:
            break
        attempts += 1
    assert attempts <= 1 + RETRIES_MAX + REQUEUES_MAX + STALE_MAX


@given(st.lists(st.floats(0, 5), min_size=1, max_size=300))
def test_retries_stay_within_ten_percent_plus_reserve(gaps_s: list[float]) -> None:
    """I8: whatever fails, retries <= depth + 0.1 a request + 0.2 a second."""
    budget, now_s, retries = Budget(), 0.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        budget.deposit(now_s)
        history = History()
        while next_move(history, Failure(Fault.REFUSED), "r", budget, now_s) is Move.RETRY:
            retries += 1
    allowance = DEPTH_MIN + DEPOSIT_RATIO * len(gaps_s) + RESERVE_PER_S * now_s
    assert retries <= allowance + 1e-6

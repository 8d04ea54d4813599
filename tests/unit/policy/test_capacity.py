"""What is carried and what is asked: learnt only while full, asked before it is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.model import BreakerState
from trimtab.policy import capacity
from trimtab.policy.capacity import Capacity, Offered

START_S = 6000.0


def run(replica: Capacity, seconds: float, per_s: float, now_s: float, *, full: bool) -> float:
    """So long at that rate, in samples of half a second; when it ended."""
    for _ in range(round(seconds * 2)):
        now_s += 0.5
        replica.observe(per_s / 2, 0.5, now_s, full=full)
    return now_s


def test_nothing_is_learnt_without_work() -> None:
    replica = Capacity()
    now_s = run(replica, 600, 400.0, START_S, full=False)
    assert replica.work_per_s(now_s) == 0.0


def test_ten_full_seconds_teach() -> None:
    replica = Capacity()
    now_s = run(replica, 9.5, 1400.0, START_S, full=True)
    assert replica.work_per_s(now_s) == 0.0
    now_s = run(replica, 0.5, 1400.0, now_s, full=True)
    assert replica.work_per_s(now_s) == pytest.approx(0.95 * 1400.0)


def test_a_moment_without_work_begins_anew() -> None:
    replica = Capacity()
    now_s = run(replica, 9, 1400.0, START_S, full=True)
    now_s = run(replica, 0.5, 1400.0, now_s, full=False)
    now_s = run(replica, 9, 1400.0, now_s, full=True)
    assert replica.work_per_s(now_s) == 0.0


def test_the_best_counts_and_fades() -> None:
    replica = Capacity()
    now_s = run(replica, 10, 1000.0, START_S, full=True)
    now_s = run(replica, 20, 400.0, now_s, full=True)
    assert replica.work_per_s(now_s) == pytest.approx(0.95 * 1000.0)
    assert replica.work_per_s(START_S + 600) == pytest.approx(0.95 * 1000.0 * 0.99**10)
    assert replica.work_per_s(START_S + 1860) == 0.0


def test_a_better_minute_replaces_a_faded_one() -> None:
    replica = Capacity()
    now_s = run(replica, 10, 1000.0, START_S, full=True)
    now_s = run(replica, 10, 1200.0, now_s + 120, full=True)
    assert replica.work_per_s(now_s) == pytest.approx(0.95 * 1200.0)


def test_the_prior_holds_until_something_is_learnt() -> None:
    replica = Capacity(prior_work_per_s=700.0)
    assert replica.work_per_s(START_S) == 700.0
    now_s = run(replica, 10, 500.0, START_S, full=True)
    assert replica.work_per_s(now_s) == pytest.approx(0.95 * 500.0)
    assert replica.work_per_s(now_s + 1900) == 700.0


def test_rare_samples_are_rates_not_lumps() -> None:
    replica = Capacity()
    for minute in range(5):
        replica.observe(60 * 300.0, 60.0, START_S + 60 * minute, full=True)
    replica.observe(1e9, 0.0, START_S + 300, full=True)
    assert replica.work_per_s(START_S + 240) == pytest.approx(0.95 * 300.0)


@given(st.lists(st.tuples(st.floats(0, 5000), st.booleans()), max_size=200))
def test_capacity_is_never_more_than_was_seen(samples: list[tuple[float, bool]]) -> None:
    replica, now_s = Capacity(), START_S
    for per_s, full in samples:
        now_s = run(replica, 0.5, per_s, now_s, full=full)
    seen = max((per_s for per_s, full in samples if full), default=0.0)
    assert 0.0 <= replica.work_per_s(now_s) <= seen
    assert len(replica._full) <= 21
    assert len(replica._best) <= capacity.HORIZON_MINUTES


def ask(pool: Offered, seconds: int, per_s: int, now_s: float) -> float:
    """So many requests a second, for so long, each of 100 units of work."""
    for _ in range(seconds):
        now_s += 1.0
        pool.asked(per_s, now_s)
        pool.delivered(100.0 * per_s, per_s, now_s)
    return now_s


def test_load_is_infinite_until_known() -> None:
    pool = Offered()
    assert pool.work_per_s(START_S) == math.inf
    now_s = ask(pool, 9, 3, START_S)
    assert pool.work_per_s(now_s) == math.inf
    quiet = Offered()
    for second in range(30):
        quiet.asked(1, START_S + second)
    quiet.delivered(100.0, 4, START_S)
    assert quiet.work_per_s(START_S + 30) == math.inf


def test_load_is_all_that_was_asked() -> None:
    pool = Offered()
    now_s = ask(pool, 60, 4, START_S)
    assert pool.work_per_s(now_s) == pytest.approx(400.0, rel=0.05)
    for _ in range(20):  # four times of it comes in, no more gets done
        now_s += 1.0
        pool.asked(16, now_s)
        pool.delivered(400.0, 4, now_s)
    assert pool.work_per_s(now_s) == pytest.approx(1600.0, rel=0.05)


def test_a_lull_does_not_fool_it() -> None:
    pool = Offered()
    now_s = ask(pool, 60, 4, START_S)
    now_s = ask(pool, 15, 0, now_s)
    assert pool.work_per_s(now_s) == pytest.approx(300.0, rel=0.05)
    now_s = ask(pool, 60, 0, now_s)
    assert pool.work_per_s(now_s) == 0.0
    assert not pool._requests or max(pool._requests.values()) == 0


def test_the_work_of_a_request_follows() -> None:
    pool = Offered()
    now_s = ask(pool, 60, 4, START_S)
    for _ in range(1500):
        now_s += 1.0
        pool.asked(4, now_s)
        pool.delivered(4 * 1000.0, 4, now_s)
    assert pool.work_per_s(now_s) == pytest.approx(4000.0, rel=0.05)


@pytest.mark.parametrize(
    ("state", "failed_ratio", "ramped_ratio", "carried"),
    [
        (BreakerState.HEALTHY, 0.0, 0.0, 100.0),
        (BreakerState.DEGRADED, 0.3, 0.0, 70.0),
        (BreakerState.RAMPING, 0.0, 0.25, 25.0),
        (BreakerState.RAMPING, 0.0, 1.7, 100.0),
        (BreakerState.EJECTED, 0.0, 1.0, 0.0),
        (BreakerState.PROBING, 0.0, 1.0, 0.0),
        (BreakerState.JOINING, 0.0, 1.0, 0.0),
        (BreakerState.DRAINING, 0.0, 1.0, 0.0),
    ],
)
def test_carries(
    state: BreakerState, failed_ratio: float, ramped_ratio: float, carried: float
) -> None:
    assert capacity.carries(state, 100.0, failed_ratio, ramped_ratio) == pytest.approx(carried)


def test_the_capacity_test() -> None:
    assert capacity.admissible(1000.0) == 900.0
    assert capacity.suffices(900.0, 1000.0)
    assert not capacity.suffices(900.1, 1000.0)
    assert not capacity.suffices(math.inf, 1000.0)

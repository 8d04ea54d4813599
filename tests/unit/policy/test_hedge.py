"""policy/hedge: late by the measure of a typical replica, seldom, and where nobody is delayed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.policy import hedge
from trimtab.policy.hedge import Hedging, is_idle
from trimtab.policy.pick import Candidate


def taught(**took_s: float) -> Hedging:
    """After 100 requests on each replica: 90 in this time, 10 in four times of it."""
    hedging = Hedging()
    for replica, seconds in took_s.items():
        for number in range(100):
            hedging.observe(replica, 0, seconds * (4 if number % 10 == 9 else 1))
    return hedging


def test_late_is_later_than_most() -> None:
    assert taught(a=0.1, b=0.1).delay_s(0) == pytest.approx(0.4)


@pytest.mark.parametrize("slow", [10.0, 1_000.0])
def test_a_slow_replica_does_not_make_slowness_usual(slow: float) -> None:
    assert taught(a=0.1, b=slow).delay_s(0) == pytest.approx(0.4)
    assert taught(a=0.1, b=0.1, c=slow).delay_s(0) == pytest.approx(0.4)


def test_a_long_prompt_may_take_longer() -> None:
    hedging = taught(a=0.1)
    usual_s, long_s = hedging.delay_s(0), hedging.delay_s(7 * 2_048)
    assert usual_s is not None
    assert long_s == pytest.approx(8 * usual_s)


def test_nobody_is_late_before_anything_is_known() -> None:
    hedging = Hedging()
    for _ in range(hedge.SAMPLES_MIN - 1):
        hedging.observe("a", 0, 0.1)
    assert hedging.delay_s(0) is None
    forgotten = taught(a=0.1)
    forgotten.keep({"b"})
    assert forgotten.delay_s(0) is None


def test_what_was_long_ago_is_forgotten() -> None:
    hedging = taught(a=10.0)
    for _ in range(hedge.SAMPLES + hedge.FRESHEN):
        hedging.observe("a", 0, 0.1)
    assert hedging.delay_s(0) == pytest.approx(0.1)


@given(wants=st.lists(st.booleans(), max_size=600))
def test_hedges_are_a_twentieth_of_all_requests(wants: list[bool]) -> None:
    hedging, hedges = Hedging(), 0
    for wanted in wants:
        hedging.deposit()
        hedges += wanted and hedging.withdraw()
    assert hedges <= 1 + hedge.SHARE * len(wants)


@pytest.mark.parametrize(
    ("inflight", "waiting", "penalty_slots", "idle"),
    [
        (0, 0, 0.0, True),
        (3, 0, 0.0, True),
        (4, 0, 0.0, False),
        (0, 1, 0.0, False),
        (0, 0, 4.0, False),
    ],
)
def test_idle_is_half_empty(inflight: int, waiting: int, penalty_slots: float, idle: bool) -> None:
    assert is_idle(Candidate("a", 8, inflight, waiting, penalty_slots)) is idle

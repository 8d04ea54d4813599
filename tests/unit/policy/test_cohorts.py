"""Attempts and failures by the second in which they started: an edge tells, the leader counts."""

from __future__ import annotations

import pytest

from trimtab.model import Cohort, Outcome, OutcomeCount
from trimtab.policy.cohorts import KEPT_S, WINDOW_S, Counts, Tally, Window

HARMLESS = [o for o in Outcome if o not in {Outcome.SOFT, Outcome.HARD}]


def failures(count: int, outcome: Outcome = Outcome.SOFT) -> tuple[OutcomeCount, ...]:
    return (OutcomeCount(outcome, count),)


def test_an_outcome_counts_where_its_attempt_started() -> None:
    tally = Tally()
    tally.started(100.2)
    tally.started(100.9)
    tally.started(101.5)
    tally.ended(Outcome.SOFT, 100.9, 102.0)
    assert tally.report(102.0) == (
        Cohort(age_ms=2000, dispatched=2, outcomes=failures(1)),
        Cohort(age_ms=1000, dispatched=1),
    )
    tally.ended(Outcome.OK, 101.5, 103.0)
    assert tally.report(103.0) == (Cohort(age_ms=2000, outcomes=failures(1, Outcome.OK)),)
    assert tally.report(104.0) == ()


def test_what_started_long_ago_is_not_told() -> None:
    tally = Tally()
    tally.started(100.0)
    tally.ended(Outcome.HARD, 100.0, 100.0 + KEPT_S)
    assert tally.report(100.0 + KEPT_S) == ()


def test_a_tally_is_bounded() -> None:
    tally = Tally()
    for tenth in range(10 * 3 * KEPT_S):
        tally.started(100.0 + tenth / 10)
    assert len(tally.report(100.0 + 3 * KEPT_S)) < KEPT_S


@pytest.mark.parametrize("outcome", [Outcome.SOFT, Outcome.HARD])
def test_failures_of_all_edges_add_up(outcome: Outcome) -> None:
    window = Window()
    assert window.count(0.0, 200.0) == Counts()
    window.add([Cohort(1000, 10), Cohort(0, 5, failures(1, outcome))], 200.0)
    window.add([Cohort(1000, outcomes=failures(4, outcome))], 200.0)
    assert window.count(0.0, 200.0) == Counts(15, 5, 15, 5)
    assert window.count(200.0, 200.0) == Counts(5, 1, 5, 1)


@pytest.mark.parametrize("outcome", HARMLESS)
def test_nothing_else_is_a_failure(outcome: Outcome) -> None:
    window = Window()
    window.add([Cohort(0, 3, failures(3, outcome))], 200.0)
    window.add([Cohort(5000, 0, failures(3, outcome))], 200.0)
    assert window.count(0.0, 200.0) == Counts(3, 0, 3, 0)


def test_the_newest_are_told_apart() -> None:
    window = Window()
    for second in range(10):
        ended = failures(10) if second >= 7 else ()
        window.add([Cohort(0, 10, ended)], 200.0 + second)
    assert window.count(0.0, 209.0) == Counts(100, 30, 30, 30)
    assert window.count(208.0, 209.0) == Counts(20, 20, 20, 20)
    window.add([Cohort(0, 5)], 210.0)
    assert window.count(0.0, 210.0) == Counts(105, 30, 35, 30)
    assert window.count(0.0, 300.0) == Counts()


def test_the_window_moves_on() -> None:
    window = Window()
    window.add([Cohort(0, 7, failures(2))], 200.0)
    assert window.count(0.0, 229.9) == Counts(7, 2, 7, 2)
    assert window.count(0.0, 230.1) == Counts()
    window.add([Cohort(0, 1), Cohort(31_000, 9)], 240.0)
    assert window.count(0.0, 240.0) == Counts(1, 0, 1, 0)


def test_a_window_is_bounded() -> None:
    window = Window()
    for second in range(300):
        window.add([Cohort(0, 1)], 200.0 + second)
        assert len(window._counts) <= WINDOW_S + 2
    assert window.count(0.0, 499.0).dispatched == WINDOW_S

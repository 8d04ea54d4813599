"""policy/suspicion: an edge's doubt grows, expires by itself, and counts as load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimtab.model import Outcome
from trimtab.policy.suspicion import CAP_S, FAILURES, FIRST_S, Suspicion


def test_doubt_starts_at_two_seconds_doubles_to_ten_and_expires() -> None:
    suspicion, now_s, lengths = Suspicion(), 100.0, []
    for _ in range(5):
        suspicion.observe(Outcome.HARD, now_s)
        lengths.append(suspicion.until_s - now_s)
        now_s = suspicion.until_s
        assert not suspicion.active(now_s)
    assert lengths == [FIRST_S, 4.0, 8.0, CAP_S, CAP_S]


def test_many_failures_at_once_are_one_doubt() -> None:
    suspicion = Suspicion()
    for _ in range(50):
        suspicion.observe(Outcome.HARD, 10.0)
    assert suspicion.until_s == 10.0 + FIRST_S


def test_success_ends_the_doubt() -> None:
    suspicion = Suspicion()
    suspicion.observe(Outcome.PATH, 10.0)
    suspicion.observe(Outcome.OK, 10.1)
    assert not suspicion.active(10.1)
    suspicion.observe(Outcome.PATH, 10.2)
    assert suspicion.until_s == 10.2 + FIRST_S


@given(st.lists(st.sampled_from(sorted(set(Outcome) - {Outcome.HARD, Outcome.PATH}))))
def test_nothing_but_hard_and_path_makes_doubt(outcomes: list[Outcome]) -> None:
    suspicion = Suspicion()
    for outcome in outcomes:
        suspicion.observe(outcome, 5.0)
        assert not suspicion.active(5.0)
    if FAILURES.isdisjoint(outcomes):
        assert suspicion.penalty_slots(5.0) == 0.0


def test_a_fast_failure_counts_as_load_that_fades() -> None:
    suspicion = Suspicion()
    suspicion.observe(Outcome.SOFT, 0.0)
    first = suspicion.penalty_slots(0.0)
    assert first == 4.0
    assert 0 < suspicion.penalty_slots(5.0) < 0.2 * first

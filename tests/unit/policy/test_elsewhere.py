"""policy/elsewhere: the leader's word while it is fresh, and a guess of what came after it."""

from __future__ import annotations

import pytest

from trimtab.model import Elsewhere, PoolPace, Urgency
from trimtab.policy.elsewhere import FRESH_S, OTHERS_MAX, Knowledge
from trimtab.policy.fairness import Shares
from trimtab.policy.work import OUTPUT_PRIOR_TOKENS


def word(
    queued: float = 0.0, charged: float = 0.0, pace: float | None = 100.0, tenant: str = "t"
) -> PoolPace:
    elsewhere = Elsewhere(tenant, Urgency.DEFAULT, queued, charged)
    return PoolPace("m", pace, (elsewhere,), answer_tokens=300.0)


def test_the_leaders_word_holds_while_fresh_then_ones_own() -> None:
    known = Knowledge()
    known.hear(word(queued=70.0), 1, Shares(), 0.0)
    for _ in range(20):
        known.streamed(5, 0.25, standing=True)
    assert known.work_per_s(FRESH_S) == 100.0
    assert list(known.waiting(FRESH_S)) == [(Urgency.DEFAULT, "t", 70.0)]
    assert known.work_per_s(FRESH_S + 1) == pytest.approx(20.0)
    assert list(known.waiting(FRESH_S + 1)) == []


def test_a_leader_that_does_not_know_leaves_it_to_the_edge() -> None:
    known = Knowledge()
    known.hear(word(queued=70.0, pace=None), 1, Shares(), 0.0)
    assert known.work_per_s(0.0) is None
    for _ in range(20):
        known.streamed(5, 0.25, standing=True)
    assert known.work_per_s(0.0) == pytest.approx(20.0)
    assert list(known.waiting(0.0)) == []


def test_what_streams_while_nobody_waits_says_nothing_of_the_pace() -> None:
    known = Knowledge()
    for _ in range(20):
        known.streamed(5, 0.25, standing=False)
    assert known.work_per_s(0.0) is None


def test_the_length_of_answers_is_the_leaders_or_ones_own() -> None:
    known = Knowledge()
    assert known.answer_tokens(None) == OUTPUT_PRIOR_TOKENS
    for _ in range(200):
        known.streamed(50, 0.25, standing=False)
        known.ended()
    assert known.answer_tokens(None) == pytest.approx(50.0, abs=5.0)
    assert known.answer_tokens(10) == 10
    known.hear(word(), 1, Shares(), 0.0)
    assert known.answer_tokens(None) == 300.0
    assert known.answer_tokens(10) == 10


@pytest.mark.parametrize(
    ("here", "elsewhere", "others"),
    [(100.0, 300.0, 3.0), (100.0, 0.0, 0.0), (0.0, 50.0, OTHERS_MAX), (0.0, 0.0, 0.0)],
)
def test_others_are_taken_to_admit_in_proportion_to_what_they_serve(
    here: float, elsewhere: float, others: float
) -> None:
    known = Knowledge()
    known.hear(word(), 1, Shares(), 0.0)
    known.charged(here)
    known.hear(word(queued=70.0, charged=elsewhere), 1, Shares(), 0.5)
    known.admitted("t", Urgency.DEFAULT, 10.0)
    assert list(known.waiting(0.6)) == [(Urgency.DEFAULT, "t", 70.0 + 10.0 * others)]
    known.hear(word(queued=70.0, charged=elsewhere), 1, Shares(), 1.0)
    assert list(known.waiting(1.1)) == [(Urgency.DEFAULT, "t", 70.0)], "the word has it in"


def test_what_tenants_got_elsewhere_counts_here_and_a_new_leader_begins_anew() -> None:
    known, shares = Knowledge(), Shares()
    known.hear(word(charged=1_000.0, tenant="a"), 1, shares, 0.0)
    assert shares.order(["b", "a"]) == ["b", "a"]
    assert shares.counters.get("a", 0.0) == 0.0, "what was before says nothing"
    known.hear(word(charged=1_700.0, tenant="a"), 1, shares, 0.5)
    known.hear(word(charged=1_600.0, tenant="a"), 1, shares, 1.0)
    assert shares.counters["a"] == pytest.approx(600.0)
    known.hear(word(charged=5.0, tenant="a"), 2, shares, 1.5)
    assert shares.counters["a"] == pytest.approx(600.0)

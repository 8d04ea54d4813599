"""policy/pick: least loaded per slot, never beyond the slots."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.policy.pick import Candidate, pick

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        replica=st.sampled_from("abcdef"),
        slots=st.integers(0, 8),
        inflight=st.integers(0, 9),
        waiting=st.integers(0, 4),
        penalty_slots=st.floats(0, 10),
    ),
    unique_by=lambda c: c.replica,
)


@given(CANDIDATES, st.sets(st.sampled_from("abcdef")), st.integers())
def test_only_a_replica_with_room_is_picked(
    candidates: list[Candidate], tried: set[str], seed: int
) -> None:
    picked = pick(candidates, tried, random.Random(seed))
    room = {c.replica for c in candidates if c.inflight < c.slots}
    assert picked is None or picked in room
    if room and room.isdisjoint(tried):
        assert picked in room


@given(CANDIDATES, st.sets(st.sampled_from("abcdef")), st.integers())
def test_a_replica_that_failed_the_request_is_the_last_resort(
    candidates: list[Candidate], tried: set[str], seed: int
) -> None:
    picked = pick(candidates, tried, random.Random(seed))
    if any(c.replica not in tried for c in candidates):
        assert picked not in tried


def test_load_is_per_slot() -> None:
    big, small = Candidate("big", 100, 30), Candidate("small", 10, 4)
    assert pick([big, small], (), random.Random(0)) == "big"


def test_a_failing_replica_that_looks_idle_is_not_a_sinkhole() -> None:
    sick, busy = Candidate("sick", 10, 0, penalty_slots=8.0), Candidate("busy", 10, 5)
    assert pick([sick, busy], (), random.Random(0)) == "busy"


def test_ties_are_shared() -> None:
    dice = random.Random(1)
    twins = [Candidate("a", 8, 2), Candidate("b", 8, 2)]
    picks = [pick(twins, (), dice) for _ in range(1000)]
    assert 400 < picks.count("a") < 600


def test_an_operators_weights_load_the_dice() -> None:
    """At a low load all are a tie, and shares must hold all the same."""
    rng = random.Random(0)
    ties = [Candidate("a", 250, 1, share=1.0), Candidate("b", 107, 0, share=3 / 7)]
    picked = Counter(pick(ties, (), rng) for _ in range(10_000))
    assert picked["a"] / 10_000 == pytest.approx(0.7, abs=0.02)
    assert pick([Candidate("b", 9, 0, share=1e-6)], (), rng) == "b"

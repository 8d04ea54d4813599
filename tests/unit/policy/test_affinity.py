"""policy/affinity: homes are stable and fair; nobody pays for them with more than they save."""

from __future__ import annotations

import math
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.policy import affinity
from trimtab.policy.pick import TIE_RATIO, Candidate, pick

KEYS = st.binary(min_size=affinity.KEY_BYTES, max_size=affinity.KEY_BYTES)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        replica=st.text("abcdef", min_size=1, max_size=3),
        slots=st.integers(0, 16),
        inflight=st.integers(0, 17),
        waiting=st.integers(0, 4),
        penalty_slots=st.floats(0, 10),
        weight=st.just(0.0) | st.floats(1e-3, 1),
        is_settled=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda c: c.replica,
)


def names(candidates: list[Candidate]) -> list[str]:
    return [c.replica for c in candidates]


@given(KEYS, CANDIDATES, st.integers(0, 5))
def test_one_that_leaves_moves_nobody_elses_keys(
    key: bytes, candidates: list[Candidate], index: int
) -> None:
    before = names(affinity.order(key, candidates))
    gone = candidates[index].replica if index < len(candidates) else ""
    left = [c for c in candidates if c.replica != gone]
    assert names(affinity.order(key, left)) == [name for name in before if name != gone]


@given(KEYS, CANDIDATES)
def test_only_the_proportion_of_weights_counts(key: bytes, candidates: list[Candidate]) -> None:
    halves = [msgspec.structs.replace(c, weight=c.weight / 2) for c in candidates]  # exact
    assert names(affinity.order(key, halves)) == names(affinity.order(key, candidates))


@given(KEYS, CANDIDATES, st.floats(1, 10))
def test_one_that_grows_only_gains_keys(
    key: bytes, candidates: list[Candidate], factor: float
) -> None:
    if not (before := affinity.order(key, candidates)):
        return
    name = before[-1].replica
    grown = [
        msgspec.structs.replace(c, weight=c.weight * factor) if c.replica == name else c
        for c in candidates
    ]
    after = names(affinity.order(key, grown))
    assert [n for n in after if n != name] == [n for n in names(before) if n != name]


@given(KEYS, CANDIDATES)
def test_only_the_settled_with_a_weight_are_homes(key: bytes, candidates: list[Candidate]) -> None:
    expected = {c.replica for c in candidates if c.is_settled and c.weight > 0.0}
    assert set(names(affinity.order(key, candidates))) == expected


@given(KEYS, CANDIDATES, st.floats(0, 50))
def test_what_is_taken_has_room_and_costs_no_more_than_allowed(
    key: bytes, candidates: list[Candidate], gain: float
) -> None:
    taken = affinity.take(affinity.order(key, candidates), candidates, gain)
    if taken is None:
        return
    assert taken.has_room
    assert taken.is_settled
    best = min(c.score for c in candidates if c.has_room)
    assert taken.score <= best + TIE_RATIO + gain / taken.slots
    total, slots = sum(c.load for c in candidates), sum(c.slots for c in candidates)
    assert taken.load < affinity.BOUND * (total + 1.0) * taken.slots / slots + 1.0


def test_homes_are_spread_as_the_weights_are() -> None:
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    candidates = [Candidate(name, 8, 0, weight=weight) for name, weight in weights.items()]
    homes = Counter(
        affinity.order(affinity.key(str(n).encode()), candidates)[0].replica for n in range(10_000)
    )
    for name, weight in weights.items():
        assert homes[name] / 10_000 == pytest.approx(weight, abs=0.02)


def home_first(home: Candidate, *others: Candidate, gain: float = 0.0) -> str | None:
    """Who is taken for a key whose order is this."""
    candidates = [home, *others]
    taken = affinity.take([c for c in candidates if c.is_settled], candidates, gain)
    return taken.replica if taken else None


@pytest.mark.parametrize(
    ("home", "other", "gain", "taken"),
    [
        # idle and equal: home
        (Candidate("home", 64, 0), Candidate("other", 64, 0), 0.0, "home"),
        # within a tie of the least loaded
        (Candidate("home", 64, 11), Candidate("other", 64, 10), 0.0, "home"),
        # busier, and nothing to save
        (Candidate("home", 64, 14), Candidate("other", 64, 10), 0.0, "other"),
        # busier, but the cached prompt is worth it
        (Candidate("home", 64, 14), Candidate("other", 64, 10), 3.0, "home"),
        # beyond its share of the load, whatever there is to save
        (Candidate("home", 64, 30), Candidate("other", 64, 10), 99.0, "other"),
        # no room
        (Candidate("home", 8, 8), Candidate("other", 64, 60), 99.0, "other"),
        # an engine's queue is load, and so is doubt
        (Candidate("home", 64, 10, waiting=8), Candidate("other", 64, 10), 1.0, "other"),
        (Candidate("home", 64, 0, penalty_slots=4.0), Candidate("other", 64, 0), 1.0, "other"),
        # only one serves: home is no longer asked for
        (Candidate("home", 64, 0, is_settled=False), Candidate("other", 64, 0), 0.0, "other"),
        # nobody has room, or none is a home
        (Candidate("home", 8, 8), Candidate("other", 8, 8), 9.0, None),
        (
            Candidate("home", 8, 0, is_settled=False),
            Candidate("other", 8, 0, is_settled=False),
            9.0,
            None,
        ),
    ],
)
def test_home_is_taken_only_while_it_is_worth_it(
    home: Candidate, other: Candidate, gain: float, taken: str | None
) -> None:
    assert home_first(home, other, gain=gain) == taken


def test_gain_is_the_prefill_of_the_prompt_in_answers_and_limited() -> None:
    assert affinity.gain_slots(8_000, 336.0) == pytest.approx(1.5)
    most = affinity.gain_slots(affinity.SAVED_MAX_TOKENS, 336.0)
    assert affinity.gain_slots(10**9, 336.0) == most
    assert affinity.gain_slots(0, 336.0) == 0.0


@given(
    st.lists(st.integers(1, 32), min_size=1, max_size=6),
    st.integers(0, 200),
    st.integers(0, 100_000),
    KEYS,
    st.integers(),
)
def test_a_flood_of_one_key_spreads(
    slots: list[int], requests: int, prompt_tokens: int, key: bytes, seed: int
) -> None:
    """As the edge does it: nobody beyond the bound, and none waits while there is room."""
    gain = affinity.gain_slots(prompt_tokens, 256.0)
    inflight = [0] * len(slots)
    for number in range(1, min(requests, sum(slots)) + 1):
        candidates = [
            Candidate(str(i), s, n, weight=s)
            for i, (s, n) in enumerate(zip(slots, inflight, strict=True))
        ]
        taken = affinity.take(affinity.order(key, candidates), candidates, gain)
        picked = taken.replica if taken else pick(candidates, (), random.Random(seed))
        assert picked is not None
        inflight[int(picked)] += 1
        share = number * slots[int(picked)] / sum(slots)
        assert inflight[int(picked)] <= math.ceil(affinity.BOUND * share + 1.0)
    assert sum(inflight) == min(requests, sum(slots))


def test_keys_of_different_parts_differ() -> None:
    parts = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"", b"abc"), (b"abc", b""), ()]
    assert len({affinity.key(*each) for each in parts}) == len(parts)
    assert affinity.key(b"x") == affinity.key(b"x")

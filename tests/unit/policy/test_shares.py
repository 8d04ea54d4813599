"""An operator's weights: a part of each replica's own limit, and never more than that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.policy.shares import ratios
from trimtab.policy.shares import scaled as part

EVEN = {"r1": 100, "r2": 100}


def scaled(slots: dict[str, int], weights: dict[str, float], settled: list[str]) -> dict[str, int]:
    given_ = ratios(slots, weights, settled)
    return {name: part(count, given_[name]) for name, count in slots.items()}


@pytest.mark.parametrize(
    ("slots", "weights", "ramping", "expected"),
    [
        (EVEN, {}, "", EVEN),
        (EVEN, {"r1": 70, "r2": 30}, "", {"r1": 100, "r2": 42}),
        (EVEN, {"r1": 7, "r2": 3}, "", {"r1": 100, "r2": 42}),
        ({"r1": 100, "r2": 8}, {"r1": 1, "r2": 0.5}, "", {"r1": 100, "r2": 4}),
        ({**EVEN, "r3": 50}, {"r1": 70, "r2": 30}, "", {"r1": 100, "r2": 42, "r3": 50}),
        (EVEN, {"r1": 1, "r2": 0}, "", {"r1": 100, "r2": 0}),
        (EVEN, {"r1": 1, "r2": 0.0001}, "", {"r1": 100, "r2": 1}),
        ({"r2": 100}, {"r1": 70, "r2": 30}, "", {"r2": 100}),  # r1 is out: nobody to share with
        ({"r2": 100}, {"r1": 70, "r2": 0}, "", {"r2": 100}),
        ({"r1": 4, "r2": 100}, {"r1": 70, "r2": 30}, "r1", {"r1": 4, "r2": 100}),  # r1 ramps
        ({"r1": 4, "r2": 100}, {"r1": 70, "r2": 30}, "r2", {"r1": 4, "r2": 42}),
        ({"r1": 4, "r2": 9}, {"r1": 70, "r2": 30}, "r1 r2", {"r1": 4, "r2": 3}),
        ({}, {"r1": 1}, "", {}),
    ],
)
def test_scaled(
    slots: dict[str, int], weights: dict[str, float], ramping: str, expected: dict[str, int]
) -> None:
    settled = [name for name in slots if name not in ramping.split()]
    assert scaled(slots, weights, settled) == expected


@given(
    slots=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10_000)),
    weights=st.dictionaries(st.sampled_from("abcdef"), st.floats(0.0, 1e6)),
    ramping=st.sets(st.sampled_from("abcdef")),
)
def test_no_weight_exceeds_a_limit_or_closes_a_pool(
    slots: dict[str, int], weights: dict[str, float], ramping: set[str]
) -> None:
    settled = [name for name in slots if name not in ramping]
    given_ = scaled(slots, weights, settled)
    assert given_.keys() == slots.keys()
    assert all(0 <= given_[name] <= slots[name] for name in slots)
    full = [name for name in settled or slots if given_[name] == slots[name]]
    assert full or not slots, "somebody keeps all of his"
    for name, count in slots.items():
        if count and weights.get(name, 1.0) > 0.0:
            assert given_[name] >= 1

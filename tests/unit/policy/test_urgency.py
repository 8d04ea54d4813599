"""policy/urgency: the urgent first, the others never starved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.model import Urgency
from trimtab.policy.urgency import BUDGETS_S, GUARANTEE, known, parts

C, I, D, B = Urgency.CRITICAL, Urgency.INTERACTIVE, Urgency.DEFAULT, Urgency.BATCH  # noqa: E741


@pytest.mark.parametrize(
    ("waiting", "count", "expected"),
    [
        ({D: 10.0}, 4.0, {D: 4.0}),
        ({D: 3.0}, 4.0, {D: 3.0}),
        ({C: 100.0, B: 100.0}, 20.0, {C: 19.0, B: 1.0}),
        ({C: 100.0, D: 100.0, B: 100.0}, 20.0, {C: 18.0, D: 1.0, B: 1.0}),
        ({C: 5.0, D: 100.0, B: 100.0}, 20.0, {C: 5.0, D: 14.0, B: 1.0}),
        ({C: 5.0, B: 0.0}, 20.0, {C: 5.0}),
        ({}, 20.0, {}),
    ],
)
def test_strict_with_a_guarantee(
    waiting: dict[Urgency, float], count: float, expected: dict[Urgency, float]
) -> None:
    assert parts(waiting, count) == pytest.approx(expected)


@given(st.dictionaries(st.sampled_from([C, I, D, B]), st.floats(0, 1000)), st.floats(0, 1000))
def test_nothing_is_given_twice_or_held_back(waiting: dict[Urgency, float], count: float) -> None:
    got = parts(waiting, count)
    assert sum(got.values()) == pytest.approx(min(count, sum(waiting.values())))
    for urgency, number in got.items():
        least = min(waiting[urgency], GUARANTEE * count)
        assert least - 1e-6 <= number <= waiting[urgency] + 1e-6


def test_what_nobody_knows_is_read_as_default() -> None:
    assert known(Urgency.UNSPECIFIED) is D
    assert known(C) is C
    assert all(short_s < long_s for long_s, short_s in BUDGETS_S.values())

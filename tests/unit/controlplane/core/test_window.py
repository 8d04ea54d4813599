"""The last minute, and quantiles of buckets."""

from __future__ import annotations

import math

import pytest

from controlplane.core.window import KEY_LIMIT, Minute, quantile


def test_a_minute_forgets() -> None:
    minute = Minute()
    minute.add("a", 1, 100.0)
    minute.add("a", 2, 101.0)
    minute.add("b", 5, 130.0)
    assert minute.totals(130.0) == {"a": 3, "b": 5}
    assert minute.totals(165.0) == {"b": 5}
    assert minute.totals(300.0) == {}


def test_a_minute_is_bounded() -> None:
    minute = Minute()
    for number in range(10_000):
        minute.add(number, 1, 100.0 + number * 0.01)
    assert len(minute.totals(200.0)) <= 12 * KEY_LIMIT


def test_the_span_grows_to_a_minute() -> None:
    minute = Minute()
    assert minute.span_s(100.0) == 0.0
    minute.add("a", 1, 100.0)
    assert minute.span_s(100.5) == 0.5
    assert 55.0 <= minute.span_s(1000.0) <= 60.0


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        ({}, 0.5, None),
        ({0.5: 0}, 0.5, None),
        ({0.25: 4}, 0.5, 0.175),
        ({0.25: 4}, 1.0, 0.25),
        ({0.5: 10, 1.0: 10}, 0.5, 0.5),
        ({0.5: 90, 10.0: 10}, 0.99, 9.75),
        ({0.001: 2}, 0.5, 0.0005),
        ({0.5: 1, math.inf: 99}, 0.5, 2560.0),
        ({3.0: 2}, 0.5, 2.75),
    ],
)
def test_quantile(buckets: dict[float, int], share: float, value: float | None) -> None:
    assert quantile(buckets, share) == pytest.approx(value)


def test_the_highest_quantile_is_never_out_of_reach() -> None:
    assert quantile({0.1: 1, 0.25: 1}, 1.0000001) == 0.25

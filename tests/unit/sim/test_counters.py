"""A value on a bound belongs to that bound's bucket, as in Prometheus."""

import pytest

from sim.counters import BOUNDS, Counters, Histogram


@pytest.mark.parametrize(("value", "bucket"), [(0.5, 0), (1, 0), (1.1, 1), (2, 1), (99, 2)])
def test_buckets(value: float, bucket: int) -> None:
    histogram = Histogram((1, 2))
    histogram.observe(value)
    assert histogram.counts[bucket] == 1
    assert (histogram.count, histogram.total) == (1, value)


def test_every_histogram_is_there_with_rising_bounds() -> None:
    counters = Counters()
    assert counters.histograms.keys() == BOUNDS.keys()
    assert all(list(bounds) == sorted(set(bounds)) for bounds in BOUNDS.values())

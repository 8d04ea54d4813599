"""Samples: epochs, ages and deltas."""

from __future__ import annotations

import math

import pytest

from agent.core import sampler
from agent.core.exposition import Histogram, Reading
from trimtab.model import EngineState, HistogramDelta
from trimtab.policy.progress import Verdict, Vitals

READY = Verdict(EngineState.READY, "serving")
STALLED = Verdict(EngineState.STALLED, "nothing moves", 3.5)
WALL_MS = 1_795_000_000_000


def reading(tokens: int, started_s: float | None = None, ttft: Histogram | None = None) -> Reading:
    return Reading(Vitals(generation_tokens=tokens), start_time_s=started_s, ttft=ttft)


def histogram(low: int, high: int, sum_s: float) -> Histogram:
    """Two buckets: up to 0.1 s, and the rest."""
    return Histogram((0.1, math.inf), (low, low + high), sum_s)


def track(*readings: Reading | None) -> sampler.Track:
    """An engine that was read so; None is a port that refused."""
    result = sampler.begin("a", 0.0)
    for count, item in enumerate(readings):
        if item is None:
            result = sampler.forget(result)
        else:
            result = sampler.read(result, item, float(count), WALL_MS + count)
    return result


EPOCHS: dict[str, tuple[list[Reading | None], int]] = {
    "never read": ([], 0),
    "by its own word": ([reading(5, 1795.5)], 1_795_500),
    "same start": ([reading(5, 1795.5), reading(6, 1795.5)], 1_795_500),
    "another start": ([reading(5, 1795.5), reading(6, 1799.0)], 1_799_000),
    "same start after a refusal": ([reading(5, 1795.5), None, reading(5, 1795.5)], 1_795_500),
    "no word": ([reading(5)], WALL_MS),
    "no word, counts on": ([reading(5), reading(6), reading(6)], WALL_MS),
    "no word, fell": ([reading(5), reading(4)], WALL_MS + 1),
    "no word, refused in between": ([reading(0), None, reading(0)], WALL_MS + 2),
    "the word comes late": ([reading(5), reading(6, 1795.5), reading(7, 1795.5)], WALL_MS),
    "the word came late, then another": ([reading(5), reading(6, 1.0), reading(7, 2.0)], 2_000),
    "the word is gone": ([reading(5, 1795.5), reading(6)], 1_795_500),
}


@pytest.mark.parametrize("name", EPOCHS)
def test_epoch(name: str) -> None:
    readings, epoch = EPOCHS[name]
    assert track(*readings).epoch == epoch


def test_a_clock_that_steps_back_does_not_hide_a_start() -> None:
    first = track(reading(5))
    assert sampler.read(first, reading(4), 1.0, WALL_MS - 3_600_000).epoch == WALL_MS + 1


def test_state_age_starts_at_the_change() -> None:
    state = sampler.judge(sampler.begin("a", 0.0), READY, 1.0)
    state = sampler.judge(state, READY, 5.0)
    _, sample = sampler.sample(state, 6.0, ())
    assert (sample.state, sample.state_age_ms, sample.reason) == (
        EngineState.READY,
        5000,
        "serving",
    )
    _, sample = sampler.sample(sampler.judge(state, STALLED, 7.0), 7.25, ())
    assert (sample.state_age_ms, sample.no_progress_ms) == (250, 3500)


def test_a_refusal_empties_the_sample() -> None:
    _, sample = sampler.sample(track(reading(5)), 2.0, (0, 1))
    assert (sample.generation_tokens_total, sample.metrics_age_ms, sample.gpus) == (5, 2000, (0, 1))
    _, sample = sampler.sample(track(reading(5), None), 2.0, ())
    assert (sample.generation_tokens_total, sample.metrics_age_ms) == (None, None)


def test_deltas_cover_what_was_not_sent() -> None:
    state = track(reading(1, ttft=histogram(3, 1, 0.5)))
    state, first = sampler.sample(state, 1.0, ())
    assert first.ttft is None
    for low in (4, 6):
        state = sampler.read(state, reading(2, ttft=histogram(low, 1, 0.75)), 2.0, WALL_MS)
    state, second = sampler.sample(state, 2.0, ())
    assert second.ttft == HistogramDelta(le_s=(0.1,), count=(3,), sum_s=0.25)
    state, third = sampler.sample(state, 3.0, ())
    assert third.ttft == HistogramDelta()
    _, fourth = sampler.sample(sampler.new_stream(state), 3.0, ())
    assert fourth.ttft is None


def test_after_a_restart_everything_is_new() -> None:
    state, _ = sampler.sample(track(reading(9, 1.0, histogram(3, 1, 9.0))), 1.0, ())
    state = sampler.read(state, reading(1, 2.0, histogram(1, 1, 0.5)), 2.0, WALL_MS)
    _, sample = sampler.sample(state, 2.0, ())
    assert sample.ttft == HistogramDelta(le_s=(0.1, math.inf), count=(1, 1), sum_s=0.5)


def test_history_found_late_is_not_new() -> None:
    """The stream began while the engine did not answer."""
    state, _ = sampler.sample(sampler.begin("a", 0.0), 0.5, ())
    state = sampler.read(state, reading(9, ttft=histogram(300, 1, 9.0)), 1.0, WALL_MS)
    _, sample = sampler.sample(state, 1.0, ())
    assert sample.ttft is None


def test_a_histogram_that_goes_wrong_is_no_news() -> None:
    assert sampler.delta(histogram(1, 1, 0.5), histogram(3, 1, 0.9)) == HistogramDelta()
    assert sampler.delta(
        Histogram((0.1, math.inf), (5, 2), 1.0), sampler.NOTHING
    ) == HistogramDelta(le_s=(0.1,), count=(5,), sum_s=1.0)

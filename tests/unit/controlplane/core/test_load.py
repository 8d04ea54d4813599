"""What an engine can take, learnt from growth between samples of one start."""

from __future__ import annotations

import pytest

from controlplane.core.load import Load
from tests.fakes.peers import sample
from trimtab.model import EngineSample
from trimtab.policy.limits import QUEUE_TARGET_MAX


def feed(load: Load, *samples: EngineSample, start_s: float = 0.0) -> None:
    before: EngineSample | None = None
    for tick, one in enumerate(samples):
        load.take_sample(before, one, 16, 20, start_s + tick / 2)
        before = one


def test_before_the_first_sample_it_may_have_what_it_says_it_runs() -> None:
    assert Load().slots(16, 0.0) == 16 + QUEUE_TARGET_MAX
    assert Load().finished_per_s == 0.0


def test_pace_and_answers_come_from_growth_while_it_is_full() -> None:
    load = Load()
    full = [
        sample(running=16, waiting=4, generation_tokens_total=50 * tick, finished_total=tick)
        for tick in range(200)
    ]
    feed(load, *full)
    assert load.pace.work_per_s == pytest.approx(100.0)
    assert load.answers.expected(None) == pytest.approx(50.0, rel=0.1)
    assert load.finished_per_s == pytest.approx(2.0)
    idle = [sample(running=1, generation_tokens_total=10**6 + tick) for tick in range(200)]
    feed(load, *idle, start_s=100.0)
    assert load.pace.work_per_s == pytest.approx(100.0)


def test_what_waits_in_it_lowers_its_limit_and_another_start_is_another_engine() -> None:
    load = Load()
    busy = [sample(running=10, waiting=10, generation_tokens_total=9 * n) for n in range(11)]
    feed(load, *busy)
    assert load.slots(16, 5.0) == pytest.approx(20 - 0.2 * 6 * 5)
    load.take_sample(sample(), sample(epoch=2), 16, 0, 6.0)
    assert load.slots(16, 6.0) == 16 + QUEUE_TARGET_MAX


def test_what_waits_in_one_that_stands_still_says_nothing() -> None:
    load = Load()
    feed(load, *[sample(running=10, waiting=10, generation_tokens_total=9) for _ in range(11)])
    assert load.slots(16, 5.0) == 16 + QUEUE_TARGET_MAX


def test_refusals_lower_its_limit() -> None:
    load = Load()
    load.refused(0.0)
    feed(load, sample())
    load.refused(1.0)
    assert load.slots(16, 1.0) == pytest.approx(19.0)

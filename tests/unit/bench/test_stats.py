"""What a run means in numbers, on runs small enough to count by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bench.goodput import stats
from bench.goodput.client import End, Outcome
from bench.goodput.scenario import LIGHT, SLO_S, Arrival, EngineKind, Scenario, Trouble
from bench.goodput.stats import Record, Sample

CAPACITY = 100.0


def outcome(
    at_s: float, times_s: list[float], end: End = End.FINISHED, tokens: int = 10
) -> Outcome:
    return Outcome(Arrival(at_s, "", tokens), end=end, token_times_s=times_s)


def record(
    outcomes: list[Outcome] | None = None,
    samples: list[Sample] | None = None,
    troubles: tuple[Trouble, ...] = (),
    duration_s: float = 20.0,
) -> Record:
    scenario = Scenario("x", "x", duration_s, ((0.0, 0.8),), EngineKind(), troubles)
    return Record(scenario, CAPACITY, outcomes or [], samples or [], 0, 0.0, 0.0)


def steady(rate_a: float, rate_b: float, until_s: float = 20.0) -> list[Sample]:
    """Counters of two engines that each do the same all the time, a sample every half second."""
    times = [tick / 2 for tick in range(int(until_s * 2) + 1)]
    return [
        Sample(t, (int(rate_a * t), int(rate_b * t)), (int(rate_a * t), int(rate_b * t)))
        for t in times
    ]


@pytest.mark.parametrize(
    ("case", "good"),
    [
        (outcome(1.0, [1.0 + SLO_S, 9.0]), True),
        (outcome(1.0, [1.1 + SLO_S, 9.0]), False),
        (outcome(1.0, []), False),
        (outcome(1.0, [1.1], End.BROKEN), False),
        (outcome(1.0, [1.1], End.ERROR_EVENT), False),
        (outcome(1.0, [1.1], End.UNFINISHED), False),
    ],
)
def test_good_is_whole_and_in_time(case: Outcome, good: bool) -> None:
    assert stats.is_good(case) is good


def test_the_light_tenant_is_judged_by_its_own_requests() -> None:
    light = [replace(o.arrival, tenant=LIGHT) for o in (outcome(0.0, [0.5]), outcome(1.0, []))]
    outcomes = [outcome(0.0, []), *(replace(outcome(0.0, [0.5]), arrival=a) for a in light)]
    assert stats.summarize(record(outcomes, steady(1, 1))).light_good_ratio == 1.0
    outcomes[1].end = End.REFUSED
    assert stats.summarize(record(outcomes, steady(1, 1))).light_good_ratio == 0.5
    assert math.isnan(stats.summarize(record(outcomes[:1], steady(1, 1))).light_good_ratio)


def test_useful_tokens_count_when_they_come_and_until_the_load_ends() -> None:
    # Two events carry five tokens each; a late request's tokens and those after the end are lost.
    run = record([outcome(0.0, [0.5, 2.5]), outcome(0.0, [9.0]), outcome(18.0, [19.5, 20.5])])
    seconds = stats.useful_tokens_per_s(run)
    assert {second: n for second, n in enumerate(seconds) if n} == {0: 5, 2: 5, 19: 5}
    assert stats.summarize(run).goodput_ratio == pytest.approx(15 / (CAPACITY * 20))


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.95, 4), (0.25, 1), (0.26, 2)])
def test_percentile_is_the_nearest_rank(share: float, value: float) -> None:
    assert stats.percentile([1, 2, 3, 4], share) == value


def test_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(stats.percentile([], 0.5))


def test_first_tokens_over_time_go_by_submission() -> None:
    run = record([outcome(1.0, [2.0]), outcome(4.0, [9.0]), outcome(6.0, [6.5])])
    bins = stats.first_token_over_time(run, 0.95)
    assert bins[:2] == [5.0, 0.5]
    assert all(math.isnan(value) for value in bins[2:])


def quiet(from_s: float, to_s: float) -> list[Sample]:
    """Engine B hears nothing for a while."""
    return [
        Sample(s.at_s, (s.arrived[0], -1 if from_s <= s.at_s < to_s else s.arrived[1]), s.tokens)
        for s in steady(10, 10)
    ]


SUBMITTED = [outcome(0.25 * n, []) for n in range(80)]  # four a second
DEAD: dict[str, object] = {}


@pytest.mark.parametrize(
    ("samples", "troubles", "times"),
    [
        (steady(10, 10), (), 0),
        (steady(10, 0), (), 1),  # one long silence is one
        (quiet(8, 12), (), 1),
        (quiet(8, 10), (), 0),  # too short
        (quiet(8, 12), (Trouble(7, 8, DEAD, engine=1),), 0),  # it has just been sick
        (quiet(8, 12), (Trouble(7, 8, DEAD, engine=0),), 1),  # the other was
    ],
)
def test_shut_out(samples: list[Sample], troubles: tuple[Trouble, ...], times: int) -> None:
    assert stats.times_shut_out(record(SUBMITTED, samples, troubles)) == times


def test_nobody_is_shut_out_while_nobody_asks() -> None:
    assert stats.times_shut_out(record(SUBMITTED[:4], steady(10, 0))) == 0


@pytest.mark.parametrize(
    ("rates", "troubles", "ratio"),
    [
        ((40, 40), (), 0.0),
        ((80, 9), (), 0.5),  # 9 is less than a quarter of 40
        ((80, 11), (), 0.0),
        ((80, 0), (Trouble(0, 20, DEAD, engine=1),), 0.0),  # only the healthy count
    ],
)
def test_starved(rates: tuple[float, float], troubles: tuple[Trouble, ...], ratio: float) -> None:
    assert stats.starved_ratio(record([], steady(*rates), troubles)) == ratio


def test_served_tokens_follow_the_counters() -> None:
    assert stats.served_tokens_per_s(record([], steady(40, 10, 30.0)), 0) == [40.0] * 20


def test_ends_and_advice_are_counted() -> None:
    refused = outcome(0.0, [], End.REFUSED)
    refused.refusals_with_advice, refused.refusals_without = 2, 1
    row = stats.summarize(record([refused, outcome(0.0, [1.0]), outcome(0.0, [8.0])]))
    assert row.ends == {"refused": 1, "finished": 2}
    assert (row.late, row.refusals_with_advice, row.refusals_without) == (1, 2, 1)
    assert row.good_ratio == pytest.approx(1 / 3)

"""What a run means, in numbers. Pure.

A request is good when its client got all of it and its first token came within SLO_S of its first
submission. Useful tokens are those of good requests, counted when they arrived and only until the
load ended; goodput is their number over what both engines, healthy and full, would have delivered
in that time. So goodput of 1 needs full load and no trouble: hence `possible` beside it.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.goodput.client import End, Outcome
from bench.goodput.scenario import LIGHT, SLO_S, Scenario, possible

SILENCE_S = 2.0  # a healthy engine that got nothing for this long was shut out ...
SILENCE_REQUESTS = 12  # ... if so many were submitted meanwhile: by chance it would be 1 in 4096
GRACE_S = 5.0  # but not just after it was sick, when care is due
STARVED_SHARE = 0.25  # of its fair share
_WINDOW_S = 4.0  # over which shares are measured
_START_S = 5.0  # before that nobody has had a share yet
LAG_LIMIT_S = 0.1  # above that the machine was too busy for the numbers to be trusted


@dataclass(frozen=True, slots=True)
class Sample:
    """Both engines' counters at a time."""

    at_s: float
    arrived: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """All that was seen of one run."""

    scenario: Scenario
    capacity_tokens_s: float
    outcomes: Sequence[Outcome]
    samples: Sequence[Sample]
    attempts: int  # requests that reached the engines
    proxy_cpu_ratio: float  # cores used
    lag_p99_s: float  # how late the measuring process was


@dataclass(frozen=True, slots=True)
class Summary:
    """One row of the table."""

    goodput_ratio: float
    possible_ratio: float
    good_ratio: float
    first_token_s: tuple[float, float, float]  # p50, p95, p99 of those that got one
    attempts_per_request: float
    ends: dict[str, int]
    late: int
    starved_ratio: float
    shut_out: int
    refusals_with_advice: int
    refusals_without: int
    proxy_cpu_ratio: float
    noisy: bool
    light_good_ratio: float
    """Of the light tenant's requests; NaN where there is none."""


def summarize(record: Record) -> Summary:
    """The row of a run."""
    outcomes, scenario = record.outcomes, record.scenario
    firsts = sorted(wait for wait in map(first_token_s, outcomes) if wait is not None)
    total = max(1, len(outcomes))
    arrivals = [outcome.arrival for outcome in outcomes]
    return Summary(
        goodput_ratio=sum(useful_tokens_per_s(record)) / _capacity_tokens(record),
        possible_ratio=possible(scenario, arrivals, record.capacity_tokens_s),
        good_ratio=sum(map(is_good, outcomes)) / total,
        first_token_s=(
            percentile(firsts, 0.5),
            percentile(firsts, 0.95),
            percentile(firsts, 0.99),
        ),
        attempts_per_request=record.attempts / total,
        ends=dict(Counter(outcome.end.value for outcome in outcomes)),
        late=sum(o.end is End.FINISHED and not is_good(o) for o in outcomes),
        starved_ratio=starved_ratio(record),
        shut_out=times_shut_out(record),
        refusals_with_advice=sum(outcome.refusals_with_advice for outcome in outcomes),
        refusals_without=sum(outcome.refusals_without for outcome in outcomes),
        proxy_cpu_ratio=record.proxy_cpu_ratio,
        noisy=record.lag_p99_s > LAG_LIMIT_S,
        light_good_ratio=_share_good([o for o in outcomes if o.arrival.tenant == LIGHT]),
    )


def _share_good(outcomes: Sequence[Outcome]) -> float:
    return sum(map(is_good, outcomes)) / len(outcomes) if outcomes else math.nan


def first_token_s(outcome: Outcome) -> float | None:
    """From the first submission to the first token."""
    times = outcome.token_times_s
    return times[0] - outcome.arrival.at_s if times else None


def is_good(outcome: Outcome) -> bool:
    """All of it came, and its first token in time."""
    wait_s = first_token_s(outcome)
    return outcome.end is End.FINISHED and wait_s is not None and wait_s <= SLO_S


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank; NaN of nothing."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


def useful_tokens_per_s(record: Record) -> list[float]:
    """Useful tokens in each second of the load."""
    seconds = [0.0] * math.ceil(record.scenario.duration_s)
    for outcome in filter(is_good, record.outcomes):
        weight = outcome.arrival.output_tokens / len(outcome.token_times_s)
        for at_s in outcome.token_times_s:
            if at_s < record.scenario.duration_s:
                seconds[int(at_s)] += weight
    return seconds


def served_tokens_per_s(record: Record, engine: int) -> list[float]:
    """Tokens, useful or not, that an engine made in each second."""
    rates: list[float] = []
    for second in range(math.ceil(record.scenario.duration_s)):
        first, last = (_nearest(record.samples, second + d) for d in (0, 1))
        made = last.tokens[engine] - first.tokens[engine]
        rates.append(made / max(1e-3, last.at_s - first.at_s))
    return rates


def first_token_over_time(record: Record, share: float, bin_s: float = 5.0) -> list[float]:
    """A percentile of the first-token times of the requests submitted in each bin; NaN of none."""
    bins: list[list[float]] = [[] for _ in range(math.ceil(record.scenario.duration_s / bin_s))]
    for outcome in record.outcomes:
        wait_s = first_token_s(outcome)
        if wait_s is not None:
            bins[int(outcome.arrival.at_s / bin_s)].append(wait_s)
    return [percentile(sorted(waits), share) for waits in bins]


def times_shut_out(record: Record) -> int:
    """How often a healthy engine got no request for SILENCE_S: the ping-pong index."""
    found = 0
    submitted = [outcome.arrival.at_s for outcome in record.outcomes]
    for engine in (0, 1):
        since_s, arrived, counted = 0.0, -1, False
        for sample in _during_load(record):
            sick = not _is_healthy(record.scenario, engine, sample.at_s, GRACE_S)
            if sick or sample.arrived[engine] != arrived:
                since_s, arrived, counted = sample.at_s, sample.arrived[engine], False
            elif sample.at_s - since_s > SILENCE_S and not counted:
                meanwhile = bisect(submitted, sample.at_s) - bisect(submitted, since_s)
                counted = meanwhile >= SILENCE_REQUESTS
                found += counted
    return found


def starved_ratio(record: Record) -> float:
    """The share of healthy engines' time in which one got less than a quarter of its share."""
    looked = starved = 0
    for first, last in _windows(record):
        for engine, fair in fair_shares(record.scenario, last.at_s).items():
            made = last.tokens[engine] - first.tokens[engine]
            rate = made / (last.at_s - first.at_s) / record.capacity_tokens_s
            looked += 1
            starved += rate < STARVED_SHARE * fair
    return starved / looked if looked else 0.0


def fair_shares(scenario: Scenario, at_s: float) -> dict[int, float]:
    """What each healthy engine should do now, as a share of both engines' capacity."""
    healthy = [engine for engine in (0, 1) if _is_healthy(scenario, engine, at_s, _WINDOW_S)]
    share = min(scenario.load_at(max(0.0, at_s - _WINDOW_S)), scenario.load_at(at_s), 1.0)
    return {engine: min(share / len(healthy), 0.5) for engine in healthy}


def _is_healthy(scenario: Scenario, engine: int, at_s: float, for_s: float) -> bool:
    """Whether it is, and has been for a while."""
    times = (at_s, at_s - for_s / 2, at_s - for_s)
    return all(scenario.capacity_at(engine, max(0.0, time)) == 1.0 for time in times)


def _during_load(record: Record) -> Iterator[Sample]:
    return (s for s in record.samples if s.at_s <= record.scenario.duration_s)


def _windows(record: Record) -> Iterator[tuple[Sample, Sample]]:
    samples = list(_during_load(record))
    first = 0
    for index, last in enumerate(samples):
        while first < index and last.at_s - samples[first + 1].at_s >= _WINDOW_S:
            first += 1
        if last.at_s >= _START_S and last.at_s - samples[first].at_s >= _WINDOW_S:
            yield samples[first], last


def _nearest(samples: Sequence[Sample], at_s: float) -> Sample:
    return min(samples, key=lambda sample: abs(sample.at_s - at_s))


def _capacity_tokens(record: Record) -> float:
    return record.capacity_tokens_s * record.scenario.duration_s

"""The evidence that comes in for one replica."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.core.standing import REFUSED_S, Standing, is_full
from tests.fakes.peers import sample
from trimtab.model import (
    Cohort,
    EngineSample,
    HistogramDelta,
    Outcome,
    OutcomeCount,
    ProbeResult,
    ReplicaUse,
)
from trimtab.policy.work import work

NOW_S = 500.0
FULL: dict[str, Any] = {"running": 16, "waiting": 4}


def counters(generated: int, prompt: int = 0, cached: int = 0, finished: int = 0) -> dict[str, Any]:
    return {
        "generation_tokens_total": generated,
        "prompt_tokens_total": prompt,
        "prefix_cache_hits_tokens_total": cached,
        "finished_total": finished,
    }


def test_work_is_what_is_new_and_not_cached() -> None:
    standing, before = Standing(), sample(**counters(100, 1000, 500, 3))
    standing.take_sample(None, before, 16, NOW_S)
    after = sample(**counters(350, 3000, 1500, 5))
    assert standing.take_sample(before, after, 16, NOW_S + 0.5) == (work(1000, 250), 2)
    assert standing.take_sample(after, after, 16, NOW_S + 1.0) == (0.0, 0)


@pytest.mark.parametrize(
    "before", [None, sample(epoch=9, **counters(5)), sample()], ids=["first", "restart", "mute"]
)
def test_another_start_begins_at_nothing(before: EngineSample | None) -> None:
    assert Standing().take_sample(before, sample(**counters(900)), 16, NOW_S) == (0.0, 0)


def test_counters_that_fall_are_no_work() -> None:
    done = Standing().take_sample(sample(**counters(900)), sample(**counters(5)), 16, NOW_S)
    assert done == (0.0, 0)


@pytest.mark.parametrize(("gap_s", "known"), [(0.5, True), (6.0, False)])
def test_capacity_is_learnt_from_samples_that_follow_closely(gap_s: float, *, known: bool) -> None:
    standing, before, now_s = Standing(), None, NOW_S
    for step in range(60):
        now_s += gap_s
        seen = sample(**FULL, **counters(int(700 * gap_s * step)))
        standing.take_sample(before, seen, 16, now_s)
        before = seen
    assert (standing.capacity.work_per_s(now_s) > 0) is known
    if known:
        assert standing.capacity.work_per_s(now_s) == pytest.approx(0.95 * 700)


@pytest.mark.parametrize(
    ("gauges", "full"),
    [
        ({"running": 15, "waiting": 0}, False),
        ({"running": 16, "waiting": 0}, True),
        ({"running": 2, "waiting": 1}, True),
        ({}, False),
    ],
)
def test_is_full(gauges: dict[str, Any], *, full: bool) -> None:
    assert is_full(sample(**gauges), 16) is full


def test_first_tokens_come_from_both_sides() -> None:
    standing = Standing()
    standing.take_sample(None, sample(ttft=HistogramDelta((0.1, 1.0), (2, 1), 0.9)), 16, NOW_S)
    use = ReplicaUse("r1", outcomes=(OutcomeCount(Outcome.OK, 4), OutcomeCount(Outcome.SOFT, 9)))
    standing.take_use("e1", use, NOW_S)
    assert standing.first_tokens == 7


def test_the_time_between_tokens_is_the_newest_known() -> None:
    standing = Standing()
    standing.take_sample(None, sample(itl=HistogramDelta((0.1,), (4,), 0.2)), 16, NOW_S)
    standing.take_sample(None, sample(itl=HistogramDelta((), (), 0.0)), 16, NOW_S)
    assert standing.itl_s == pytest.approx(0.05)


def test_a_closed_port_is_news_for_a_moment() -> None:
    standing = Standing()
    standing.take_use("e1", ReplicaUse("r1", refused=2), NOW_S)
    standing.take_use("e2", ReplicaUse("r1"), NOW_S)
    assert standing.refusing_edges(NOW_S) == 1
    standing.take_use("e2", ReplicaUse("r1", refused=1), NOW_S + 1)
    assert standing.refusing_edges(NOW_S + 1) == 2
    assert standing.refusing_edges(NOW_S + REFUSED_S) == 1
    assert standing.refusing_edges(NOW_S + REFUSED_S + 1) == 0
    assert not standing.refused_s


@pytest.mark.parametrize(
    ("result", "probe", "tells"),
    [
        (ProbeResult(1, "r1", ok=True), True, True),
        (ProbeResult(1, "r1", ok=False), False, True),
        (ProbeResult(1, "r1", ok=True, outcome=Outcome.OK), True, True),
        (ProbeResult(1, "r1", ok=False, outcome=Outcome.SOFT), False, True),
        (ProbeResult(1, "r1", ok=False, outcome=Outcome.HARD), False, True),
        (ProbeResult(1, "r1", ok=False, outcome=Outcome.OVERLOAD), None, False),
        (ProbeResult(1, "r1", ok=False, outcome=Outcome.CLIENT), None, False),
        (ProbeResult(1, "r1", ok=False, outcome=Outcome.UNKNOWN), None, False),
    ],
)
def test_a_full_engine_fails_no_probe(
    result: ProbeResult, *, probe: bool | None, tells: bool
) -> None:
    standing = Standing()
    standing.take_probe(result)
    assert (standing.probe, standing.probes_tell) == (probe, tells)


def test_cohorts_are_counted() -> None:
    standing = Standing()
    failed = Cohort(0, 9, (OutcomeCount(Outcome.SOFT, 2),))
    for edge in ("e1", "e2"):
        standing.take_use(edge, ReplicaUse("r1", cohorts=(failed,)), NOW_S)
    counts = standing.window.count(0.0, NOW_S)
    assert (counts.dispatched, counts.failed) == (18, 4)

"""policy/limits: a limit finds what the engine can run, stays there, and lets nothing pile up."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.policy.limits import (
    BLIND_AFTER_S,
    BLIND_RATIO,
    CUT,
    FLOOR_SLOTS,
    QUEUE_TARGET_MAX,
    Limit,
    Reading,
)

PERIOD_S = 0.5


def observed(limit: Limit, count: int = 1, start_s: float = 0.0, **fields: float) -> float:
    """The limit after so many equal reports; the first one says only when time begins."""
    values: dict[str, float] = {"max_num_seqs": 100, "used": 100} | fields
    now_s = start_s
    limit.observe(Reading(**values), now_s)  # type: ignore[arg-type]
    for _ in range(count):
        now_s += PERIOD_S
        limit.observe(Reading(**values), now_s)  # type: ignore[arg-type]
    return limit.slots(now_s)


def test_it_begins_with_what_the_engine_says_it_can_run() -> None:
    assert Limit(100).slots(0.0) == 100 + QUEUE_TARGET_MAX


@pytest.mark.parametrize(
    ("waiting", "used", "expected"),
    [
        (14, 104, 94.0),  # 0.2 x 10 a second for 5 s
        (4, 104, 104.0),
        (0, 104, 104.0),  # never above the ceiling
        (1_000, 104, FLOOR_SLOTS),
        (None, 104, 104.0),
    ],
)
def test_it_shrinks_by_what_waits_in_the_engine(
    waiting: int | None, used: int, expected: float
) -> None:
    fields = {} if waiting is None else {"waiting": waiting}
    assert observed(Limit(100), 10, used=used, **fields) == pytest.approx(expected)


def test_it_grows_back_only_while_it_is_used() -> None:
    limit = Limit(100)
    low = observed(limit, 20, waiting=54)
    assert low == FLOOR_SLOTS
    assert observed(limit, 10, 100.0, used=3, waiting=0) == low
    assert observed(limit, 10, 200.0, used=20, waiting=0) == pytest.approx(low + 5.6)


def test_a_tiny_engine_keeps_its_own_floor() -> None:
    assert observed(Limit(2), 100, max_num_seqs=2, waiting=50) == 2


def test_what_runs_now_tells_how_many_fit_into_the_cache() -> None:
    limit = Limit(100)
    assert observed(limit, waiting=4, running=40, kv_ratio=0.7) == 104
    assert observed(limit, waiting=4, running=40, kv_ratio=0.9) == pytest.approx(44.9, abs=0.1)


def test_a_full_cache_and_a_preemption_cut_once_in_a_while() -> None:
    limit = Limit(100)
    observed(limit, waiting=4, preemptions_total=7)
    assert observed(limit, 5, 1.0, waiting=4, preemptions_total=8) == pytest.approx(104 * CUT)
    assert observed(limit, 1, 9.0, waiting=4, preemptions_total=8) == pytest.approx(104 * CUT)
    assert observed(limit, 1, 9.6, waiting=4, preemptions_total=9) == pytest.approx(104 * CUT**2)
    full = observed(Limit(100), 19, waiting=4, running=400, kv_ratio=0.95)
    assert full == pytest.approx(104 * CUT**2), "at once, and 5 s later"


def test_a_restarted_engine_has_preempted_nothing() -> None:
    limit = Limit(100)
    observed(limit, waiting=4, preemptions_total=70)
    assert observed(limit, 4, 10.0, waiting=4, preemptions_total=0) == 104


def test_a_refusal_is_a_cut_at_most_once_a_second() -> None:
    limit = Limit(100)
    for now_s in (0.0, 0.1, 0.9):
        limit.refused(now_s)
    assert limit.slots(1.0) == pytest.approx(104 * 0.95)
    for number in range(200):
        limit.refused(10.0 + number)
    assert limit.slots(300.0) == 1.0


@pytest.mark.parametrize(
    ("per_period", "expected"), [(0, 100 + 1.0), (1, 100 + 1.0 + 0.6 * 2), (50, 104.0)]
)
def test_few_wait_in_an_engine_that_finishes_few(per_period: int, expected: float) -> None:
    limit = Limit(100)
    for number in range(200):
        reading = Reading(100, 104, waiting=1, finished_total=number * per_period)
        limit.observe(reading, number * PERIOD_S)
    assert limit.slots(100.0) == pytest.approx(expected)


def test_a_restart_of_the_engine_is_no_negative_rate() -> None:
    limit = Limit(100)
    for now_s, total in enumerate((100, 102, 0, 2)):
        limit.observe(Reading(100, 104, waiting=4, finished_total=total), float(now_s))
    assert limit.finished_per_s == pytest.approx(2.0)


def test_silence_freezes_it_and_blindness_lowers_it_without_closing() -> None:
    limit = Limit(100)
    observed(limit, waiting=4)
    assert limit.slots(BLIND_AFTER_S) == 104
    assert limit.slots(BLIND_AFTER_S + 1.5) == pytest.approx(104 * 0.98)
    assert limit.slots(3_600.0) == pytest.approx(BLIND_RATIO * 104)
    limit.observe(Reading(max_num_seqs=100, used=100, waiting=54), 3_600.0)
    assert limit.slots(3_600.0) == 104, "one report is no standing queue"
    limit.observe(Reading(max_num_seqs=100, used=100, waiting=54), 7_200.0)
    assert limit.slots(7_200.0) == pytest.approx(104 - 0.2 * 2.0 * 50), "the gap counts as 2 s"


@pytest.mark.parametrize("delay", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("runs", [128, 60, 9])
def test_it_settles_whatever_the_delay(delay: int, runs: int) -> None:
    """I23: an engine that runs so many, edges that use all, reports up to four periods old."""
    limit, now_s, seen = Limit(128), 0.0, deque([0] * (delay + 1), maxlen=delay + 1)
    history = []
    for _ in range(240):
        now_s += PERIOD_S
        allowed = limit.slots(now_s)
        seen.append(max(0, int(allowed) - runs))
        limit.observe(Reading(128, int(allowed), waiting=seen[0]), now_s)
        history.append(allowed)
    settled = history[-60:]
    assert max(settled) - min(settled) <= 2.0
    assert abs(settled[-1] - (runs + QUEUE_TARGET_MAX)) <= 2.0


@given(
    st.integers(1, 300),
    st.lists(
        st.builds(
            Reading,
            max_num_seqs=st.integers(1, 300),
            used=st.integers(0, 400),
            running=st.none() | st.integers(0, 400),
            waiting=st.none() | st.integers(0, 10_000),
            kv_ratio=st.none() | st.floats(0, 1),
            preemptions_total=st.none() | st.integers(0, 100),
            finished_total=st.none() | st.integers(0, 10_000),
        ),
        max_size=40,
    ),
    st.floats(0, 30),
)
def test_it_stays_within_what_the_engine_can_run(
    first: int, readings: list[Reading], gap_s: float
) -> None:
    limit, now_s = Limit(first), 0.0
    for reading in readings:
        now_s += gap_s
        limit.observe(reading, now_s)
        least = min(FLOOR_SLOTS, reading.max_num_seqs)
        assert least <= limit.slots(now_s) <= reading.max_num_seqs + QUEUE_TARGET_MAX

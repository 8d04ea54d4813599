"""The agent's verdict on an engine: every state, its order, and what must never happen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.model import EngineSample, EngineState
from trimtab.policy import progress
from trimtab.policy.progress import Answer, Observation, Verdict, Vitals

S = EngineState
PERIOD_S = 0.5
BUSY = Vitals(running=7, waiting=4, prompt_tokens=100, generation_tokens=900, steps=900)
COLD = replace(BUSY, steps=3)
IDLE = replace(BUSY, running=0, waiting=0)


def metrics(vitals: Vitals = BUSY, **flags: bool) -> Observation:
    return Observation(Answer.METRICS, vitals, **flags)


REFUSED = Observation(Answer.REFUSED)
LOADING = Observation(Answer.REFUSED, loading=True)
SILENT = Observation(Answer.SILENT)
BLIND = Observation(Answer.BLIND)


def run(looks: Iterable[Observation], period_s: float = PERIOD_S) -> list[Verdict]:
    """The verdict after each look."""
    watch, verdicts = None, []
    for count, look in enumerate(looks):
        watch, verdict = progress.step(watch, look, 1000.0 + count * period_s)
        verdicts.append(verdict)
    return verdicts


def for_s(seconds: float, look: Observation) -> list[Observation]:
    return [look] * round(seconds / PERIOD_S)


CASES: dict[str, tuple[list[Observation], EngineState]] = {
    "not yet answered": ([SILENT], S.UNKNOWN),
    "busy": ([metrics()], S.READY),
    "idle for an hour": (for_s(3600, metrics(IDLE)), S.READY),
    "no gauges, no work": (for_s(60, metrics(Vitals(generation_tokens=0))), S.READY),
    "first steps": ([metrics(COLD)], S.WARMING),
    "first tokens, steps not exported": (
        [metrics(Vitals(running=1, generation_tokens=5))],
        S.WARMING,
    ),
    "cold but idle": ([metrics(replace(COLD, running=0, waiting=0))], S.READY),
    "frozen just under the limit": (for_s(3.0, metrics()), S.READY),
    "frozen": (for_s(3.5, metrics()), S.STALLED),
    "frozen while warming, in time": (for_s(18.0, metrics(COLD)), S.WARMING),
    "frozen while warming": (for_s(18.5, metrics(COLD)), S.STALLED),
    "only waiting, frozen": (for_s(3.5, metrics(Vitals(running=0, waiting=1))), S.STALLED),
    "frozen, then moves": (
        [*for_s(9, metrics()), metrics(replace(BUSY, steps=901))],
        S.READY,
    ),
    "frozen, then a gauge moves": (
        [*for_s(9, metrics()), metrics(replace(BUSY, waiting=3))],
        S.READY,
    ),
    "frozen, then drained": ([*for_s(9, metrics()), metrics(IDLE)], S.READY),
    "frozen behind a silent API": ([*for_s(2, metrics()), *for_s(2, SILENT)], S.STALLED),
    "silent for a moment": ([metrics(), *for_s(2.5, SILENT)], S.READY),
    "silent": ([metrics(), *for_s(3, SILENT)], S.STALLED),
    "silent while idle": ([metrics(IDLE), *for_s(3, SILENT)], S.STALLED),
    "silent while warming": ([metrics(COLD), *for_s(17.5, SILENT)], S.WARMING),
    "silent too long while warming": ([metrics(COLD), *for_s(18, SILENT)], S.STALLED),
    "silent from the start": (for_s(3.5, SILENT), S.STALLED),
    "silent, then answers": ([metrics(), *for_s(9, SILENT), metrics(IDLE)], S.READY),
    "refused, never up": (for_s(600, REFUSED), S.STARTING),
    "refused, never up, too long": (for_s(901, REFUSED), S.DEAD),
    "refused, process loads for an hour": (for_s(3600, LOADING), S.STARTING),
    "was up, refused": ([metrics(), REFUSED], S.DEAD),
    "was up, refused, a new process loads": ([metrics(), REFUSED, LOADING], S.STARTING),
    "returned": ([metrics(), *for_s(30, REFUSED), metrics(IDLE)], S.READY),
    "returned with the same numbers": ([*for_s(3, metrics()), REFUSED, metrics()], S.READY),
    "the engine died behind its API": ([metrics(), metrics(dead=True)], S.DEAD),
    "asleep": ([metrics(IDLE, asleep=True)], S.SLEEPING),
    "asleep with work in it": (for_s(60, metrics(asleep=True)), S.SLEEPING),
    "draining": ([metrics(draining=True)], S.DRAINING),
    "draining, first steps": ([metrics(COLD, draining=True)], S.DRAINING),
    "draining, frozen": (for_s(3.5, metrics(draining=True)), S.STALLED),
    "draining, gone": ([metrics(), replace(REFUSED, draining=True)], S.DEAD),
    "no vLLM metrics": (for_s(60, BLIND), S.READY),
    "no vLLM metrics, dead": ([replace(BLIND, dead=True)], S.DEAD),
    "no vLLM metrics, draining": ([replace(BLIND, draining=True)], S.DRAINING),
}


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str) -> None:
    looks, expected = CASES[name]
    verdict = run(looks)[-1]
    assert verdict.state is expected
    assert verdict.reason
    assert not any(letter.isdigit() for letter in verdict.reason)


def test_no_progress_is_counted_from_the_last_movement() -> None:
    verdicts = run([metrics(), *for_s(5, metrics())])
    assert [verdict.no_progress_s for verdict in verdicts[:4]] == [0.0, 0.5, 1.0, 1.5]
    assert verdicts[-1].no_progress_s == 5.0


@given(st.lists(st.floats(-0.02, 0.02), min_size=7, max_size=7))
def test_looks_that_come_a_little_early_tell_a_hang_no_later(jitter_s: list[float]) -> None:
    watch, states = None, []
    for count, early_s in enumerate(jitter_s):
        watch, verdict = progress.step(watch, metrics(), PERIOD_S * count - early_s)
        states.append(verdict.state)
    assert states == [S.READY] * 6 + [S.STALLED]


def test_time_nobody_looked_is_not_held_against_the_engine() -> None:
    """The agent was stopped for a minute: the answer lies in its socket, unread."""
    watch, _ = progress.step(None, metrics(), 0.0)
    watch, verdict = progress.step(watch, SILENT, 60.0)
    assert (verdict.state, verdict.no_progress_s) == (S.READY, progress.UNWATCHED_S)
    _, verdict = progress.step(watch, SILENT, 30.0)
    assert verdict.no_progress_s == progress.UNWATCHED_S


@pytest.mark.parametrize(
    ("state", "no_progress_ms", "steps", "hung"),
    [
        (S.STALLED, 9_999, 900, False),
        (S.STALLED, 10_000, 900, True),
        (S.STALLED, 59_999, 3, False),
        (S.STALLED, 60_000, 3, True),
        (S.READY, 60_000, 900, False),
    ],
)
def test_is_hung(state: EngineState, no_progress_ms: int, steps: int, hung: bool) -> None:
    sample = EngineSample(
        "a", state, no_progress_ms=no_progress_ms, running=1, waiting=0, steps_total=steps
    )
    assert progress.is_hung(sample) is hung


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=2, max_size=60))
def test_overload_of_any_depth_is_never_a_stall(depths: list[tuple[int, int]]) -> None:
    looks = [
        metrics(Vitals(running=running, waiting=waiting, generation_tokens=count))
        for count, (running, waiting) in enumerate(depths)
    ]
    assert {verdict.state for verdict in run(looks)} <= {S.READY, S.WARMING}


@given(
    running=st.integers(0, 1000),
    waiting=st.integers(1, 1000),
    steps=st.integers(0, 10**9),
    period_s=st.floats(0.05, progress.UNWATCHED_S),
)
def test_frozen_counters_with_work_are_always_a_stall(
    running: int, waiting: int, steps: int, period_s: float
) -> None:
    vitals = Vitals(running=running, waiting=waiting, steps=steps)
    limit_s = progress.HANG_SUSPECT_S
    if steps < progress.WARMING_STEPS:
        limit_s *= progress.WARMING_PATIENCE
    verdicts = run([metrics(vitals)] * (int(limit_s / period_s) + 3), period_s)
    for count, verdict in enumerate(verdicts):
        if count * period_s > limit_s + period_s:
            assert verdict.state is S.STALLED
        elif count * period_s < limit_s - progress.LOOK_JITTER_S - 0.001:
            assert verdict.state in {S.READY, S.WARMING}


@given(
    st.lists(
        st.builds(
            Observation,
            st.sampled_from(Answer),
            st.sampled_from([BUSY, COLD, IDLE, Vitals()]),
            st.booleans(),
            st.booleans(),
            st.booleans(),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_any_sequence_gets_a_verdict(looks: list[Observation]) -> None:
    for look, verdict in zip(looks, run(looks), strict=True):
        assert verdict.no_progress_s >= 0.0
        assert verdict.reason
        if look.dead:
            assert verdict.state is S.DEAD
        elif look.answer is Answer.REFUSED:
            assert verdict.state in {S.STARTING, S.DEAD}


@pytest.mark.parametrize(
    ("steps", "tokens", "slowest_s", "patience_s"),
    [
        (500, None, 0.1, 10.0),  # a working engine: as long as a step
        (500, None, 20.0, 20.0),  # it has been seen to take that long for a first token
        (500, None, 2560.0, 60.0),  # but not for ever
        (19, None, 0.1, 60.0),  # its first steps may compile
        (None, 500, 0.1, 10.0),
        (None, None, 0.1, 60.0),  # it tells neither
    ],
)
def test_an_engine_that_shows_no_work_is_given_time_by_its_own_record(
    steps: int | None, tokens: int | None, slowest_s: float, patience_s: float
) -> None:
    sample = EngineSample("r", S.READY, steps_total=steps, generation_tokens_total=tokens)
    assert progress.idle_patience_s(sample, slowest_s) == patience_s

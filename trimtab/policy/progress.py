"""Is the engine doing useful work? The agent's verdict on one engine, from what it answers.

Rule 1: any movement is progress. Token, step and finish counters move with work; vLLM sets its
gauges only when the engine core steps, so a changed gauge proves a step as well.
Rule 2: overload is not failure: however much waits, an engine whose numbers move is not stalled.
Rule 3: no work, no stall. Absent gauges are no work: engines with several API servers export none
before their first step.
Rule 4: an API that takes connections but does not answer shows no progress either.
Rule 5: time in which nobody looked is not held against the engine.
An idle engine whose core hangs can't be told from an idle one that is well by this: edges tell, for
whom nothing comes (`idle_patience_s`), and a probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from trimtab.model import EngineSample, EngineState

HANG_SUSPECT_S = 3.0
"""No new work after this long without progress: ten times a slow step (0.3 s)."""
HANG_EJECT_S = 10.0
"""Its requests are given up after this long: a long prefill step takes a few seconds, not ten."""
WARMING_STEPS = 20
"""An engine compiles kernels and captures graphs for new shapes in its first steps."""
WARMING_PATIENCE = 6.0
"""Factor on both while warming: such a step was seen to take most of a minute."""
START_ALLOWANCE_S = 900.0
"""A port that never answered may belong to an engine that still loads: 10 to 15 minutes."""
LOOK_JITTER_S = 0.1
"""A look this little before a limit is taken for on it: looks come each 0.5 s, but not to the
millisecond, and the next one would tell half a second later."""
UNWATCHED_S = 0.75
"""Longest time one look accounts for: its period and its wait; more, and the agent was paused."""


class Answer(Enum):
    """How the engine's API took the last question."""

    METRICS = auto()
    """It answered with vLLM metrics."""
    BLIND = auto()
    """It answered, but not with vLLM metrics."""
    SILENT = auto()
    """It has not answered yet, or not in time."""
    REFUSED = auto()
    """Nothing listens on its port."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What moves when the engine steps. None where the engine does not export it; never NaN."""

    running: int | None = None
    waiting: int | None = None
    kv_cache_usage_ratio: float | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    steps: int | None = None
    finished: int | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at an engine."""

    answer: Answer
    vitals: Vitals = Vitals()
    """As just read; only with METRICS."""
    dead: bool = False
    """/health says that the engine died."""
    loading: bool = False
    """A process was seen that will listen on its port; only with REFUSED."""
    asleep: bool = False
    """vLLM's sleep mode; only with METRICS."""
    draining: bool = False
    """The control plane asked to drain it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the agent makes of the engine."""

    state: EngineState
    reason: str
    """Words for people, without numbers that change at each look."""
    no_progress_s: float = 0.0
    """How long work, or a question, has been there without any sign of progress."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered between looks."""

    began_s: float
    """The first look."""
    looked_s: float
    """The newest look."""
    vitals: Vitals | None = None
    """The newest readable ones; None until there were any, and after the port refused."""
    was_up: bool = False
    """Whether it ever answered."""
    verdict: Verdict = Verdict(EngineState.UNKNOWN, "no answer yet")


def step(watch: Watch | None, observation: Observation, now_s: float) -> tuple[Watch, Verdict]:
    """Take one look into account; begin with None."""
    watch = watch or Watch(began_s=now_s, looked_s=now_s)
    verdict = _judge(watch, observation, now_s)
    answer = observation.answer
    vitals = watch.vitals
    if answer is Answer.METRICS:
        vitals = observation.vitals
    elif answer is not Answer.SILENT:
        vitals = None
    was_up = watch.was_up or answer in {Answer.METRICS, Answer.BLIND}
    watch = replace(watch, looked_s=now_s, vitals=vitals, was_up=was_up, verdict=verdict)
    return watch, verdict


def is_warming(vitals: Vitals) -> bool:
    """Whether it has work and makes its first steps.

    Where steps are not exported, output tokens stand for them: each step makes about one or more.
    """
    made = vitals.steps if vitals.steps is not None else vitals.generation_tokens
    return work(vitals) > 0 and made is not None and made < WARMING_STEPS


def is_hung(sample: EngineSample) -> bool:
    """Whether its requests should be given up: the control plane's question about a sample."""
    vitals = Vitals(
        running=sample.running,
        waiting=sample.waiting,
        generation_tokens=sample.generation_tokens_total,
        steps=sample.steps_total,
    )
    patience_s = HANG_EJECT_S * _patience(vitals)
    return sample.state is EngineState.STALLED and sample.no_progress_ms >= 1000 * patience_s


def idle_patience_s(sample: EngineSample, slowest_s: float) -> float:
    """How long requests may wait on an engine that shows no work before it is taken for hung.

    What it has not begun is in its API process still: a picture to be read, a grammar to be built.
    So it is given as long as a step, and as it ever took for a first token (`slowest_s`), but never
    longer than a step that compiles; and that long until it has made its first steps.
    """
    longest_s = HANG_EJECT_S * WARMING_PATIENCE
    return longest_s if is_cold(sample) else min(max(HANG_EJECT_S, slowest_s), longest_s)


def is_cold(sample: EngineSample) -> bool:
    """Whether its first steps are still to come, as far as it says."""
    made = sample.generation_tokens_total if sample.steps_total is None else sample.steps_total
    return made is None or made < WARMING_STEPS


def work(vitals: Vitals) -> int:
    """Requests that the engine has."""
    return (vitals.running or 0) + (vitals.waiting or 0)


def _patience(vitals: Vitals | None) -> float:
    return WARMING_PATIENCE if vitals is not None and is_warming(vitals) else 1.0


def _judge(watch: Watch, seen: Observation, now_s: float) -> Verdict:
    if seen.dead:
        return Verdict(EngineState.DEAD, "its health check says that the engine died")
    if seen.answer is Answer.REFUSED:
        return _refused(watch, seen, now_s)
    if seen.asleep:
        return Verdict(EngineState.SLEEPING, "in sleep mode")
    no_progress_s = _no_progress_s(watch, seen, now_s)
    silent = seen.answer is Answer.SILENT
    patience = _patience(watch.vitals if silent else seen.vitals)
    if no_progress_s + LOOK_JITTER_S >= HANG_SUSPECT_S * patience:
        reason = "its API does not answer" if silent else "it has work, but nothing moves"
        return Verdict(EngineState.STALLED, reason, no_progress_s)
    if silent:
        return replace(watch.verdict, no_progress_s=no_progress_s)
    return replace(_serving(seen), no_progress_s=no_progress_s)


def _refused(watch: Watch, seen: Observation, now_s: float) -> Verdict:
    if seen.loading:
        return Verdict(EngineState.STARTING, "its port refuses, its process is loading")
    if not watch.was_up and now_s - watch.began_s < START_ALLOWANCE_S:
        return Verdict(EngineState.STARTING, "its port refuses, it was not up yet")
    return Verdict(EngineState.DEAD, "its port refuses")


def _no_progress_s(watch: Watch, seen: Observation, now_s: float) -> float:
    if seen.answer is Answer.BLIND:
        return 0.0
    if seen.answer is Answer.METRICS and (work(seen.vitals) == 0 or seen.vitals != watch.vitals):
        return 0.0
    looked_at_s = min(max(now_s - watch.looked_s, 0.0), UNWATCHED_S)
    return watch.verdict.no_progress_s + looked_at_s


def _serving(seen: Observation) -> Verdict:
    if seen.draining:
        return Verdict(EngineState.DRAINING, "draining on request")
    if seen.answer is Answer.BLIND:
        return Verdict(EngineState.READY, "it answers, but shows no vLLM metrics")
    if is_warming(seen.vitals):
        return Verdict(EngineState.WARMING, "making its first steps")
    return Verdict(EngineState.READY, "serving")

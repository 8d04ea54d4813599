"""How fast the engines behind a recording are: the model's three costs of a step.

A step lasts base + a x decoding sequences + c x prompt tokens in it (sim/engine). Of an answer the
edge saw its mean time between tokens, which is the mean step; how many others ran meanwhile, and
how many prompt tokens were computed, follows from the other arrivals. So base and a come from a
least squares fit over answers, and c from how much later a long prompt's first token came than that
of a prompt without length.

Rules: engines of a pool are taken as equal, since a recording does not say who served whom; where
the load hardly varied, base and a can't be told apart, and keep the ratio of the default engine;
no cost is below 0. Cached prompts make c smaller: it is what prompts cost *with* the hits they had.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from sim.engine import EngineSpec
from trimtab.recording import Arrival, Recording
from trimtab.whatif import Costs

SAMPLE = 4_000  # answers: their means are then right to a percent or two
ANSWERS_MIN = 20
TOKENS_MIN = 8  # a shorter answer says little about a step
SPREAD_MIN = 0.15  # of the running, standard deviation over mean
ROUNDS = 4
FIRST_STEPS = 1.5  # a prompt waits for half a step, and is computed in the next one
FULL_SPAN_S = 1.0
FULL = 0.9  # of the slots: from here on a request may wait in the engine
BASE_MIN = 0.05  # of a mean step; a fit may say less, and no GPU does
DEFAULT = EngineSpec()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one answer says; tokens and sequences are of one replica."""

    step_s: float
    running: float
    prefill_tokens: float
    """In a mean step."""
    prompt_tokens: int
    first_s: float | None
    """From its replica's having it to its first token; None if not seen, or behind a queue."""
    weight: float


class _Flow:
    """Something that adds up over time."""

    def __init__(self, events: Iterable[tuple[float, float]]) -> None:
        ordered = sorted(events)
        self._at_s = [at_s for at_s, _ in ordered]
        self._sums = [0.0, *accumulate(amount for _, amount in ordered)]

    def until(self, at_s: float) -> float:
        """How much there was by then."""
        return self._sums[bisect_right(self._at_s, at_s)]


class _Level:
    """How many there are over time."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        # the integral up to t is the sum of (t - start) of all begun, less the same of all ended
        self._begun = _Flow((start, 1.0) for start, _ in spans)
        self._begun_at = _Flow((start, start) for start, _ in spans)
        self._ended = _Flow((end, 1.0) for _, end in spans)
        self._ended_at = _Flow((end, end) for _, end in spans)

    def mean(self, from_s: float, until_s: float) -> float:
        """Between two times."""
        return (self._area(until_s) - self._area(from_s)) / (until_s - from_s)

    def _area(self, at_s: float) -> float:
        begun = at_s * self._begun.until(at_s) - self._begun_at.until(at_s)
        return begun - at_s * self._ended.until(at_s) + self._ended_at.until(at_s)


def fit(recording: Recording) -> Costs:
    """The costs; ValueError when too little was recorded to tell."""
    answers = _answers(recording)
    if len(answers) < ANSWERS_MIN:
        raise ValueError(
            f"only {len(answers)} answers of {TOKENS_MIN} tokens and more were recorded, and fewer"
            f" than {ANSWERS_MIN} do not tell how fast the engines are"
        )
    varied = _spread(answers) >= SPREAD_MIN
    prefill_s = 0.0
    for _ in range(ROUNDS):
        base_s, per_sequence_s = _steps(answers, prefill_s, varied=varied)
        prefill_s = _prefill_s(answers, base_s, per_sequence_s)
    base_s, per_sequence_s = _steps(answers, prefill_s, varied=varied)
    return Costs(
        base_s=base_s,
        per_sequence_s=per_sequence_s,
        per_prefill_token_s=prefill_s,
        answers=len(answers),
        varied=varied,
    )


def _answers(recording: Recording) -> list[_Answer]:
    replicas = recording.head.replicas
    slots = sum(replica.max_num_seqs for replica in replicas) / len(replicas)
    ran = [a for a in recording.arrivals if a.output_tokens and a.lasted_s > a.wait_s]
    level = _Level([(a.at_s + a.wait_s, a.at_s + a.lasted_s) for a in ran])
    prefills = _Flow((_began_s(a), a.prompt_tokens) for a in ran)
    told = [a for a in ran if a.output_tokens >= TOKENS_MIN]
    streams = [a for a in told if a.first_s is not None and a.first_s < a.lasted_s]
    told = streams if len(streams) >= ANSWERS_MIN else told
    number = len(replicas)
    found = []
    for a in told[:: max(1, len(told) // SAMPLE)]:
        began_s = _began_s(a)
        ended_s = a.at_s + a.lasted_s
        steps = a.output_tokens - (a.first_s is not None)
        tokens = prefills.until(ended_s) - prefills.until(began_s)
        placed_s = a.at_s + a.wait_s
        is_full = level.mean(placed_s - FULL_SPAN_S, placed_s) >= FULL * slots * number
        answer = _Answer(
            step_s=(ended_s - began_s) / steps,
            running=min(slots, level.mean(began_s, ended_s) / number),
            prefill_tokens=tokens / number / steps,
            prompt_tokens=a.prompt_tokens,
            first_s=None if a.first_s is None or is_full else a.first_s - a.wait_s,
            weight=steps,
        )
        found.append(answer)
    return found


def _began_s(arrival: Arrival) -> float:
    """When its first token came, as near as is known."""
    return arrival.at_s + (arrival.wait_s if arrival.first_s is None else arrival.first_s)


def _spread(answers: Sequence[_Answer]) -> float:
    mean = sum(a.running for a in answers) / len(answers)
    variance = sum((a.running - mean) ** 2 for a in answers) / len(answers)
    return float(variance**0.5 / mean) if mean else 0.0


def _steps(answers: Sequence[_Answer], prefill_s: float, *, varied: bool) -> tuple[float, float]:
    """Base and cost a sequence, when a prompt token costs so much."""
    weight = sum(a.weight for a in answers)
    net = [(a, max(0.0, a.step_s - prefill_s * a.prefill_tokens)) for a in answers]
    mean_s = sum(a.weight * step_s for a, step_s in net) / weight
    mean = sum(a.weight * a.running for a in answers) / weight
    if not varied or not mean:
        scale = mean_s / (DEFAULT.step_base_s + DEFAULT.step_per_sequence_s * mean)
        return scale * DEFAULT.step_base_s, scale * DEFAULT.step_per_sequence_s
    covariance = sum(a.weight * (a.running - mean) * (step_s - mean_s) for a, step_s in net)
    variance = sum(a.weight * (a.running - mean) ** 2 for a in answers)
    slope_s = min(max(0.0, covariance / variance), (1.0 - BASE_MIN) * mean_s / mean)
    return mean_s - slope_s * mean, slope_s


def _prefill_s(answers: Sequence[_Answer], base_s: float, per_sequence_s: float) -> float:
    """What a prompt token costs, by long prompts; else by the default engine's proportions."""
    seen = sorted((a for a in answers if a.first_s is not None), key=lambda a: a.prompt_tokens)
    costs = sorted(
        ((a.first_s or 0.0) - FIRST_STEPS * (base_s + per_sequence_s * a.running)) / a.prompt_tokens
        for a in seen[len(seen) // 2 :]
        if a.prompt_tokens
    )
    if len(costs) >= ANSWERS_MIN:
        return max(0.0, costs[len(costs) // 3])  # the upper half shared its step with others
    mean = sum(a.running for a in answers) / len(answers)
    scale = (base_s + per_sequence_s * mean) / DEFAULT.step_s(round(mean), 0)
    return scale * DEFAULT.step_per_prefill_token_s

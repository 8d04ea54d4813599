"""How much work a request is, and how fast work gets done. The unit: one decoded token of a full
engine.

Rules: a prompt token costs PREFILL_WORK of one (28 us against 0.67 ms, as measured on an H200 with
its batch full); an answer's length is unknown before it ends, so the pool's recent mean stands for
it, bounded by what the request allows. Speed is measured in tokens, never in departures: 1.7
departures a second scatter by a quarter over 20 s, their tokens by 2 %. It is measured only while
the engine is full, because what an engine does without work says nothing about what it can do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

PREFILL_WORK = 0.042
BYTES_PER_TOKEN = 4  # English text and JSON; it scales only the small prompt part
OUTPUT_PRIOR_TOKENS = 256.0
OUTPUT_PRIOR_WEIGHT = 4.0  # answers
OUTPUT_MEMORY = 200.0  # answers; their mean is then right to about 8 % for a wide mix
PACE_TAU_S = 10.0
PACE_TRUSTED_AFTER_S = 2.0  # a batch that fills computes prompts and yields little
GAP_LIMIT_S = 5.0  # between two readings; beyond, nobody knows what happened in it


def work(prompt_tokens: float, output_tokens: float) -> float:
    """What a request is, or was."""
    return PREFILL_WORK * prompt_tokens + output_tokens


def pass_work(prompt_tokens: float) -> int:
    """What a request is that makes no token, in tokens: its one pass over the prompt."""
    return max(1, math.ceil(work(prompt_tokens, 0)))


@dataclass(slots=True)
class AnswerLength:
    """How long answers are: tokens made, ended or not, per answer ended.

    A mean over those that have ended is far too low for minutes, as the short ones end first.
    """

    tokens: float = OUTPUT_PRIOR_TOKENS * OUTPUT_PRIOR_WEIGHT
    ended: float = OUTPUT_PRIOR_WEIGHT

    def add(self, tokens: float, ended: float) -> None:
        """So many tokens were made and so many answers ended since the last call."""
        self.tokens += max(0.0, tokens)
        self.ended += max(0.0, ended)
        if self.ended > OUTPUT_MEMORY:
            self.tokens *= OUTPUT_MEMORY / self.ended
            self.ended = OUTPUT_MEMORY

    def expected(self, max_tokens: float | None) -> float:
        """What to expect of a request that allows so many; None allows any."""
        mean = max(1.0, self.tokens / self.ended)
        return mean if max_tokens is None else min(mean, max_tokens)


def mean_answer(lengths: Iterable[AnswerLength]) -> float | None:
    """Over several engines; None while too few answers were seen."""
    known = [length for length in lengths if length.ended > OUTPUT_PRIOR_WEIGHT]
    ended = sum(length.ended - OUTPUT_PRIOR_WEIGHT for length in known)
    if ended < OUTPUT_PRIOR_WEIGHT:
        return None
    return sum(length.tokens for length in known) / sum(length.ended for length in known)


@dataclass(slots=True)
class Pace:
    """Work per second while full: a mean that fades with PACE_TAU_S of full time."""

    _per_s: float = 0.0
    _full_s: float = 0.0

    @property
    def work_per_s(self) -> float | None:
        """None while too little was seen."""
        return self._per_s if self._full_s >= PACE_TRUSTED_AFTER_S else None

    def observe(self, done: float, elapsed_s: float, *, full: bool) -> None:
        """So much was done since the last reading."""
        if not full or not 0.0 < elapsed_s <= GAP_LIMIT_S:
            return
        self._full_s += elapsed_s
        # young: the plain mean of all seen; then fading
        gain = max(elapsed_s / self._full_s, -math.expm1(-elapsed_s / PACE_TAU_S))
        self._per_s += gain * (max(0.0, done) / elapsed_s - self._per_s)

"""How long requests are, and what they cost an engine.

Rules: lengths are lognormal around a mean, cut to what the engine takes; capacity is not computed
but measured, on an engine of its own that is kept full: no queue rule can do better than that.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import msgspec

from sim.engine import EngineSpec, Request
from sim.world.leaping import LeapingEngine

QUANTILES = 4_000  # stand for a distribution where its mean is wanted
ROUNDS_WARM, ROUNDS_MEASURED = 2, 8  # a round is as many requests as fit in the engine
WAITING = 4  # kept in the queue of an engine that is kept full


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Lengths of one kind of requests. The defaults are a chat workload seen in production."""

    prompt_tokens: float = 1522.0
    output_tokens: float = 855.0
    sigma: float = 1.0
    """Of the logarithm; 0 makes all equal to their means."""
    prompt_max_tokens: int = 16_384
    output_max_tokens: int = 8_192
    cached_ratio: float = 0.5
    """This share of a prompt begins like everybody's."""

    def prompt(self, z: float) -> int:
        """The prompt's length at a standard normal deviate."""
        return _lognormal(self.prompt_tokens, self.sigma, z, self.prompt_max_tokens)

    def output(self, z: float) -> int:
        """The answer's length at a standard normal deviate."""
        return _lognormal(self.output_tokens, self.sigma, z, self.output_max_tokens)

    def shared_blocks(self, prompt_tokens: int, block_size: int) -> tuple[int, ...]:
        """The hashes of a prompt's beginning."""
        whole = _shared(math.ceil(self.prompt_max_tokens / block_size))
        return whole[: int(prompt_tokens * self.cached_ratio) // block_size]


@dataclass(frozen=True, slots=True)
class Worth:
    """What requests of a shape cost: a saturated engine does work of 1 each second."""

    rate_per_s: float
    """Requests of mean length that it finishes."""
    per_prompt_token: float
    per_output_token: float

    def work(self, prompt_tokens: int, output_tokens: int) -> float:
        """Seconds of the engine that a request takes."""
        return self.per_prompt_token * prompt_tokens + self.per_output_token * output_tokens


@cache
def worth(spec: EngineSpec, shape: Shape) -> Worth:
    """Measured by saturating an engine."""
    prompts, outputs = _mean(shape.prompt), _mean(shape.output)
    rate = _saturated_tokens_per_s(spec, shape) / outputs
    # A second's work is divided between prompts and answers by the cost of their tokens.
    prefill = spec.step_per_prefill_token_s * (1.0 - shape.cached_ratio)
    decode = spec.step_base_s / spec.max_num_seqs + spec.step_per_sequence_s
    scale = 1.0 / (rate * (prefill * prompts + decode * outputs))
    return Worth(rate, scale * prefill, scale * decode)


def _saturated_tokens_per_s(spec: EngineSpec, shape: Shape) -> float:
    engine = LeapingEngine(spec)
    dice = random.Random(0)
    full = spec.max_num_seqs + WAITING
    began_s, began_tokens, now_s, done = 0.0, 0, 0.0, 0
    for number in range(full):
        engine.submit(0.0, _request(shape, dice, number, spec.block_size))
    while done < (ROUNDS_WARM + ROUNDS_MEASURED) * full:
        now_s = engine.next_news_s() or now_s
        for news in engine.advance(now_s):
            if news.finished_reason is None:
                continue
            done += 1
            engine.submit(now_s, _request(shape, dice, full + done, spec.block_size))
            if done == ROUNDS_WARM * full:
                began_s, began_tokens = now_s, engine.generation_tokens
    return (engine.generation_tokens - began_tokens) / (now_s - began_s)


def _request(shape: Shape, dice: random.Random, number: int, block_size: int) -> Request:
    prompt = shape.prompt(dice.gauss(0.0, 1.0))
    output = shape.output(dice.gauss(0.0, 1.0))
    return Request(
        f"{number}", prompt, output, block_hashes=shape.shared_blocks(prompt, block_size)
    )


def _lognormal(mean: float, sigma: float, z: float, most: int) -> int:
    length = math.exp(math.log(mean) - sigma * sigma / 2 + sigma * z)
    return min(most, max(1, round(length)))


def _mean(length: Callable[[float], int]) -> float:
    inverse = NormalDist().inv_cdf
    return sum(length(inverse((i + 0.5) / QUANTILES)) for i in range(QUANTILES)) / QUANTILES


@cache
def _shared(blocks: int) -> tuple[int, ...]:
    return tuple(range(1, blocks + 1))

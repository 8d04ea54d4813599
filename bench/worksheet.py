"""The arithmetic of docs/tuning.md: what a few numbers of a running fleet say about the others.

./run bench worksheet    the figures of the page: Little's law on a lab's fleet, and slots simulated
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from sim.world.scenario import ReplicaSpec, Scenario, SourceSpec
from sim.world.shapes import Shape, worth
from sim.world.world import World

FLOAT32_BYTES = 4
SLOTS = (64, 128, 256, 512)
RATES_PER_S = (3.6, 5.0)


@dataclass(frozen=True, slots=True)
class Moment:
    """What a place, an engine or all of them, has and does at a moment of steady work."""

    running: float
    queued: float
    tokens_per_s: float
    """Delivered, of answers."""
    answer_tokens: float
    """Of a mean answer."""

    @property
    def requests_per_s(self) -> float:
        """What ends, and in steady work begins."""
        return self.tokens_per_s / self.answer_tokens

    @property
    def wait_s(self) -> float:
        """In the queue, by Little's law: who waits = what comes a second x how long each waits."""
        return self.queued / self.requests_per_s

    @property
    def service_s(self) -> float:
        """In the engine, by the same law."""
        return self.running / self.requests_per_s

    @property
    def stream_tokens_per_s(self) -> float:
        """What one caller sees."""
        return self.tokens_per_s / self.running

    def queue_bound(self, budget_s: float) -> float:
        """How many may wait, so that none waits longer."""
        return budget_s * self.requests_per_s


# A lab's two H200 with gpt-oss-120b, six days and one minute of its dashboards.
ANSWER_TOKENS = 2.36e9 / 2.76e6
ALL = Moment(running=173, queued=29, tokens_per_s=2_879, answer_tokens=ANSWER_TOKENS)
ONE = Moment(running=128, queued=29, tokens_per_s=2_879 / 2, answer_tokens=ANSWER_TOKENS)
MEASURED_WAIT_S = 18.7


def logits_bytes(prompt_tokens: int, vocabulary: int) -> int:
    """One copy of the scores of every token of the vocabulary, for so many prompt tokens."""
    return prompt_tokens * vocabulary * FLOAT32_BYTES


def slots_row(slots: int, rates_per_s: tuple[float, ...] = RATES_PER_S) -> str:
    """Two simulated engines of so many slots: what they can do, and what callers get."""
    spec, shape = ReplicaSpec(slots=slots), Shape()
    can_per_s = 2 * worth(spec.engine(), shape).rate_per_s
    cells = [f"{slots}", f"{can_per_s * shape.output_tokens:,.0f}"]
    cells += [f"{1 / spec.engine().step_s(slots, 0):.1f}"]
    for rate_per_s in rates_per_s:
        source = SourceSpec(load=rate_per_s / can_per_s, shape=shape)
        scenario = Scenario(
            about="", duration_s=500, warmup_s=100, replicas=(spec, spec), sources=(source,)
        )
        got = World(scenario, "trimtab", 1).run().metrics
        refused = got.refused / (got.done + got.refused)
        cells += [f"{got.ttft_p50_s:.1f}", f"{got.ttft_p99_s:.1f}", f"{refused:.0%}"]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the figures."""
    for name, at in (("both engines as one", ALL), ("one engine, full", ONE)):
        sys.stdout.write(
            f"{name}: {at.requests_per_s:.2f} requests/s, in the engine {at.service_s:.0f} s,"
            f" queued {at.wait_s:.1f} s, a stream {at.stream_tokens_per_s:.0f} tokens/s;"
            f" {at.queue_bound(15):.0f} may wait for 15 s\n"
        )
    for slots in SLOTS:
        sys.stdout.write(f"{slots_row(slots)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

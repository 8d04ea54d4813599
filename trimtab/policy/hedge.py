"""Whether a stream whose first token is late gets a second attempt beside the first.

After Dean & Barroso, "The Tail at Scale" (2013): ask another replica once the first is later than
most are, take whichever begins first, end the other. Rules. Late is later than QUANTILE of what a
typical replica of the pool took lately: of each one's own, the median over the replicas, so that a
slow one does not make slowness usual. A prompt's first token is owed one step and its own prefill,
so delays are counted in those. Hedges are at most SHARE of the requests, and only run where more
than half of a replica is idle: under load a second attempt delays somebody else's first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from trimtab.policy.pick import Candidate

QUANTILE = 0.99  # at 0.95 calm times spend the whole share, and nothing is left for a stutter
SAMPLES = 128  # of a replica: what "lately" is
SAMPLES_MIN = 20  # fewer say nothing about what is rare
FRESHEN = 8  # new samples after which the quantile is taken again
STEP_TOKENS = 2_048.0  # of a prompt, computed in the time of about one step
SHARE = 0.05
DEPTH = 10.0  # hedges saved up in good times: what one stutter of a replica may cost
IDLE_RATIO = 0.5


@dataclass(slots=True)
class _Lately:
    """What one replica's first tokens took, in steps of their prompts."""

    samples: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    seen: int = 0
    quantile_s: float | None = None

    def add(self, sample_s: float) -> None:
        self.samples.append(sample_s)
        self.seen += 1
        if len(self.samples) >= SAMPLES_MIN and self.seen % FRESHEN == 0:
            ordered = sorted(self.samples)
            self.quantile_s = ordered[int(QUANTILE * (len(ordered) - 1))]


@dataclass(slots=True)
class Hedging:
    """Of one pool at one edge."""

    tokens: float = 1.0
    _replicas: dict[str, _Lately] = field(default_factory=dict)

    def observe(self, replica: str, prompt_tokens: int, took_s: float) -> None:
        """A first token came after so long, or had not come when another replica's did."""
        lately = self._replicas.get(replica)
        if lately is None:
            lately = self._replicas[replica] = _Lately()
        lately.add(took_s / _steps(prompt_tokens))

    def keep(self, replicas: Collection[str]) -> None:
        """Forget all others."""
        self._replicas = {n: lately for n, lately in self._replicas.items() if n in replicas}

    def delay_s(self, prompt_tokens: int) -> float | None:
        """When such a request is late; None while nobody can tell."""
        known = [r.quantile_s for r in self._replicas.values() if r.quantile_s is not None]
        if not known:
            return None
        return sorted(known)[(len(known) - 1) // 2] * _steps(prompt_tokens)

    def deposit(self) -> None:
        """A request starts."""
        self.tokens = min(DEPTH, self.tokens + SHARE)

    def withdraw(self) -> bool:
        """Pay for one hedge; False when there is nothing left."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


def is_idle(candidate: Candidate) -> bool:
    """Whether a hedge there delays nobody."""
    return not candidate.waiting and candidate.load + 1 <= IDLE_RATIO * candidate.slots


def _steps(prompt_tokens: int) -> float:
    return 1.0 + prompt_tokens / STEP_TOKENS

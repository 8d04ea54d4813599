"""What the policy knows of one replica: its breaker, and the evidence that comes in for it.

Rules: counts are of what is new since the breaker last looked; an edge's word about a closed port,
or about requests without an answer, is good for REFUSED_S, six of its reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtab.model import EngineSample, HistogramDelta, Outcome, ProbeResult, ReplicaUse
from trimtab.policy.breaker import Breaker, Evidence
from trimtab.policy.capacity import Capacity
from trimtab.policy.cohorts import FAILURES, Window
from trimtab.policy.progress import is_cold
from trimtab.policy.work import work

REFUSED_S = 3.0
FULL_RATIO = 0.95
"""Of the places in the batch: so many taken is full, as some change hands all the time."""
SAMPLE_GAP_MAX_S = 5.0
"""Between two samples; beyond it nobody knows whether the engine was full."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A probe under way."""

    probe_id: int
    stream: int
    at_s: float


@dataclass(slots=True)
class Standing:
    """Where one replica stands."""

    breaker: Breaker = field(default_factory=Breaker)
    window: Window = field(default_factory=Window)
    capacity: Capacity = field(default_factory=Capacity)
    refused_s: dict[str, float] = field(default_factory=dict)
    """When each edge last found its port closed."""
    unanswered_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When each edge last said that nothing comes for its requests, and since when so."""
    slowest_s: float = 0.0
    """The longest that a first token was seen to take since its engine started, at most."""
    sampled_s: float = 0.0
    first_tokens: int = 0
    itl_s: float | None = None
    """Mean time between tokens in the newest sample that has one."""
    probe: bool | None = None
    probes_tell: bool = True
    """False when the newest probe said nothing of the engine."""
    asked: Asked | None = None
    asked_s: float = 0.0
    """When the newest probe was asked for."""
    evidence: Evidence | None = None
    """What its breaker's last move was judged by; None if that was under another leader."""
    unsaved: bool = False
    """The breaker's record is not what was stored."""

    def take_probe(self, result: ProbeResult) -> None:
        """A probe ended."""
        outcome = result.outcome
        if outcome is Outcome.UNSPECIFIED:
            outcome = Outcome.OK if result.ok else Outcome.SOFT
        self.asked = None
        self.probes_tell = outcome is Outcome.OK or outcome in FAILURES
        self.probe = outcome is Outcome.OK if self.probes_tell else None

    def take_use(self, edge: str, use: ReplicaUse, now_s: float) -> None:
        """An edge's report on it."""
        self.window.add(use.cohorts, now_s)
        self.first_tokens += sum(o.count for o in use.outcomes if o.outcome is Outcome.OK)
        if use.refused:
            self.refused_s[edge] = now_s
        if use.unanswered_ms:
            self.unanswered_s[edge] = now_s, now_s - use.unanswered_ms / 1000

    def take_sample(
        self, before: EngineSample | None, sample: EngineSample, max_num_seqs: int, now_s: float
    ) -> tuple[float, int]:
        """Its agent's sample; the work done and the requests finished since the one before."""
        self.first_tokens += sum(sample.ttft.count) if sample.ttft else 0
        self.itl_s = _mean_s(sample.itl) or self.itl_s
        span_s, self.sampled_s = now_s - self.sampled_s, now_s
        if before is None or before.epoch != sample.epoch:
            self.slowest_s = 0.0
            self.capacity.observe(0.0, span_s, now_s, full=False)
            return 0.0, 0
        if sample.ttft is not None and not is_cold(before):
            took_s = (
                le_s for le_s, n in zip(sample.ttft.le_s, sample.ttft.count, strict=False) if n
            )
            self.slowest_s = max(self.slowest_s, *took_s, 0.0)
        full = all(is_full(one, max_num_seqs) for one in (before, sample))
        work_done = done(before, sample)
        self.capacity.observe(work_done, span_s, now_s, full=full and span_s <= SAMPLE_GAP_MAX_S)
        return work_done, grown(before.finished_total, sample.finished_total)

    def refusing_edges(self, now_s: float) -> int:
        """How many edges just found its port closed."""
        self.refused_s = {e: at for e, at in self.refused_s.items() if now_s - at < REFUSED_S}
        return len(self.refused_s)

    def waited_s(self, now_s: float) -> float:
        """How long requests have waited on it for nothing, at the edge where they did longest."""
        if not self.unanswered_s:
            return 0.0
        said = self.unanswered_s.items()
        self.unanswered_s = {edge: at for edge, at in said if now_s - at[0] < REFUSED_S}
        return now_s - min((since for _, since in self.unanswered_s.values()), default=now_s)


def is_full(sample: EngineSample, max_num_seqs: int) -> bool:
    """Whether it has all the work that it can take."""
    return bool(sample.waiting) or (sample.running or 0) >= FULL_RATIO * max_num_seqs


def done(before: EngineSample, sample: EngineSample) -> float:
    """The work between two samples of one start."""
    prompt = grown(before.prompt_tokens_total, sample.prompt_tokens_total)
    cached = grown(before.prefix_cache_hits_tokens_total, sample.prefix_cache_hits_tokens_total)
    output = grown(before.generation_tokens_total, sample.generation_tokens_total)
    return work(max(0, prompt - cached), output)


def grown(before: int | None, after: int | None) -> int:
    """How much a counter grew; 0 where it is not there."""
    return 0 if before is None or after is None else max(0, after - before)


def _mean_s(delta: HistogramDelta | None) -> float | None:
    count = sum(delta.count) if delta else 0
    return delta.sum_s / count if delta and count else None

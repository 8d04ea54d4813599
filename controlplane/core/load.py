"""What one engine can take and does, learnt from its agent's samples.

Rules: only growth between two samples of one start of the engine counts; another start is another
engine, with a new limit. Lost samples are lost: nothing is guessed for the time between.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.core.standing import done, grown, is_full
from trimtab.model import EngineSample
from trimtab.policy.limits import QUEUE_TARGET_MAX, Limit, Reading
from trimtab.policy.work import AnswerLength, Pace


@dataclass(slots=True)
class Load:
    """Of one replica."""

    limit: Limit | None = None
    frozen: bool = False
    """An operator has paused what moves limits."""
    pace: Pace = field(default_factory=Pace)
    answers: AnswerLength = field(default_factory=AnswerLength)
    _sampled_s: float = 0.0

    def take_sample(
        self,
        before: EngineSample | None,
        sample: EngineSample,
        max_num_seqs: int,
        inflight: int,
        now_s: float,
    ) -> None:
        """Its agent's sample; `inflight` is what edges have on it."""
        elapsed_s, self._sampled_s = now_s - self._sampled_s, now_s
        same_start = before is not None and before.epoch == sample.epoch
        if self.limit is None or not same_start:
            self.limit = Limit(max_num_seqs)
        work = done(before, sample) if before is not None and same_start else None
        if before is not None and work is not None:
            full = is_full(before, max_num_seqs) and is_full(sample, max_num_seqs)
            self.pace.observe(work, elapsed_s, full=full)
            self.answers.add(
                grown(before.generation_tokens_total, sample.generation_tokens_total),
                grown(before.finished_total, sample.finished_total),
            )
        if work == 0 and sample.running and sample.generation_tokens_total is not None:
            return  # it stands still: what waits says nothing of what it can take
        self.limit.observe(
            Reading(
                max_num_seqs=max_num_seqs,
                used=inflight,
                running=sample.running,
                waiting=sample.waiting,
                kv_ratio=sample.kv_cache_usage_ratio,
                preemptions_total=sample.preemptions_total,
                finished_total=sample.finished_total,
            ),
            now_s,
            frozen=self.frozen,
        )

    def refused(self, now_s: float) -> None:
        """It turned away what an edge sent."""
        if self.limit is not None and not self.frozen:
            self.limit.refused(now_s)

    def slots(self, max_num_seqs: int, now_s: float) -> float:
        """Attempts allowed at once over all edges."""
        return self.limit.slots(now_s) if self.limit else float(max_num_seqs + QUEUE_TARGET_MAX)

    @property
    def finished_per_s(self) -> float:
        """Requests that end in a second; 0 while unknown."""
        return (self.limit.finished_per_s or 0.0) if self.limit else 0.0

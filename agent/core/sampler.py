"""Readings and verdicts to the samples that are sent.

Rules: another process start, a counter that falls, or a port that refused in between is another
start of the engine (epoch); what was read before a refusal is forgotten; histogram deltas cover
what happened since the last sample that was taken, never the time before the agent or its stream
began; a state's age starts when the state changes.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from typing import NamedTuple

from agent.core.exposition import Histogram, Reading
from trimtab.model import EngineSample, EngineState, HistogramDelta
from trimtab.policy.progress import Verdict, Vitals

NOTHING = Histogram((), (), 0.0)


class Track(NamedTuple):
    """What is remembered of one engine."""

    replica: str
    verdict: Verdict
    state_since_s: float
    epoch: int = 0
    """The engine's start; 0 until it was read once."""
    started_s: float | None = None
    """When that start was by the engine's own word, seconds since 1970."""
    reading: Reading | None = None
    """The newest readable page of this start."""
    read_s: float = 0.0
    """When that was read."""
    ttft_sent: Histogram | None = None
    """What samples have told so far; None before a stream's first one."""
    itl_sent: Histogram | None = None


def begin(replica: str, now_s: float) -> Track:
    """Before the first look."""
    return Track(replica, Verdict(EngineState.UNKNOWN, "not looked at yet"), now_s)


def judge(track: Track, verdict: Verdict, now_s: float) -> Track:
    """Take a verdict into account."""
    since_s = track.state_since_s if verdict.state is track.verdict.state else now_s
    return track._replace(verdict=verdict, state_since_s=since_s)


def forget(track: Track) -> Track:
    """It is gone: what was read is no longer true."""
    return track._replace(reading=None)


def read(track: Track, reading: Reading, now_s: float, wall_ms: int) -> Track:
    """Take a page into account; `wall_ms` names a start that does not name itself."""
    if not _restarted(track, reading):
        started_s = track.started_s or reading.start_time_s
        return track._replace(reading=reading, read_s=now_s, started_s=started_s)
    started_s = reading.start_time_s
    return track._replace(
        reading=reading,
        read_s=now_s,
        epoch=max(wall_ms, track.epoch + 1) if started_s is None else int(started_s * 1000),
        started_s=started_s,
        ttft_sent=track.ttft_sent and NOTHING,
        itl_sent=track.itl_sent and NOTHING,
    )


def new_stream(track: Track) -> Track:
    """Whoever listens now was told nothing: the first sample carries no deltas."""
    return track._replace(ttft_sent=None, itl_sent=None)


def sample(track: Track, now_s: float, gpus: tuple[int, ...]) -> tuple[Track, EngineSample]:
    """The sample to send now; its deltas count as sent."""
    page = track.reading or Reading(Vitals())
    vitals = page.vitals
    taken = EngineSample(
        replica=track.replica,
        state=track.verdict.state,
        reason=track.verdict.reason,
        state_age_ms=_ms(now_s - track.state_since_s),
        epoch=track.epoch,
        metrics_age_ms=None if track.reading is None else _ms(now_s - track.read_s),
        no_progress_ms=_ms(track.verdict.no_progress_s),
        running=vitals.running,
        waiting=vitals.waiting,
        kv_cache_usage_ratio=vitals.kv_cache_usage_ratio,
        prompt_tokens_total=vitals.prompt_tokens,
        generation_tokens_total=vitals.generation_tokens,
        steps_total=vitals.steps,
        preemptions_total=page.preemptions,
        finished_total=vitals.finished,
        rejections_total=page.rejections,
        prefix_cache_queries_tokens_total=page.prefix_queries_tokens,
        prefix_cache_hits_tokens_total=page.prefix_hits_tokens,
        ttft=delta(page.ttft, track.ttft_sent),
        itl=delta(page.itl, track.itl_sent),
        gpus=gpus,
    )
    if track.reading is None:
        return track, taken
    return track._replace(ttft_sent=page.ttft or NOTHING, itl_sent=page.itl or NOTHING), taken


def delta(new: Histogram | None, sent: Histogram | None) -> HistogramDelta | None:
    """What `new` has more than `sent`, only of buckets that moved."""
    if new is None or sent is None:
        return None
    same_bounds = sent.le_s == new.le_s
    before = sent.cumulative if same_bounds else _rebucket(sent, new.le_s)
    grown = [now - then for now, then in zip(new.cumulative, before, strict=True)]
    counts = map(operator.sub, grown, (0, *grown))
    moved = [(bound, count) for bound, count in zip(new.le_s, counts, strict=False) if count > 0]
    return HistogramDelta(
        le_s=tuple(bound for bound, _ in moved),
        count=tuple(count for _, count in moved),
        sum_s=max(new.sum_s - sent.sum_s, 0.0) if moved else 0.0,
    )


def _rebucket(histogram: Histogram, le_s: tuple[float, ...]) -> list[int]:
    """What it has at or below other bounds."""
    counts = (0, *histogram.cumulative)
    return [counts[bisect_right(histogram.le_s, bound_s)] for bound_s in le_s]


def _restarted(track: Track, new: Reading) -> bool:
    if track.epoch == 0:
        return True
    if track.started_s is not None and new.start_time_s is not None:
        return track.started_s != new.start_time_s
    return track.reading is None or _fell(track.reading, new)


def _fell(old: Reading, new: Reading) -> bool:
    pairs = (
        (old.vitals.prompt_tokens, new.vitals.prompt_tokens),
        (old.vitals.generation_tokens, new.vitals.generation_tokens),
        (old.vitals.steps, new.vitals.steps),
        (old.vitals.finished, new.vitals.finished),
        (old.preemptions, new.preemptions),
    )
    return any(
        before is not None and after is not None and after < before for before, after in pairs
    )


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 0)

"""How a run went, in figures that compare.

Rules: everything is measured from the warm-up's end to the end; capacity is what a saturated engine
was measured to do, times the fleet; work counts when its tokens come, and only if the job's first
token came within the objective, counted from the *user's* first submission, and its stream did not
break. A job still running at the end counts for what it has.

goodput(s)   good work / (capacity x time)
cai          capacity availability: mean of eligible / truly healthy capacity (1 is ideal)
ppi, ppi2    times an hour that a truly healthy replica is eligible at no gateway; ppi2: within 60 s
             after another one was (ping-pong)
flips        changes per minute of the replica that got 80 % of a window of 40 dispatches
jain         fairness over replicas of work done / capacity, 1 is even
ttr          seconds from the calm to the end of the last bad 10 s of arrivals (p90 first token
             over 2 s, or an error); None if there is no disturbance
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sim.world.history import History
from sim.world.requests import Fate, Job

FLIP_WINDOW = 40
DOMINANCE = 0.8
PING_PONG_S = 60.0
BUCKET_S = 10.0
BAD_TTFT_S = 2.0
SLOS_S = (60.0, 15.0)


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures of one run."""

    offered: float
    goodput_60: float
    goodput_15: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    done: int
    refused: int
    failed: int
    broken: int
    attempts_per_job: float
    attempts_max: int
    wasted_ratio: float
    cai: float
    ppi: float
    ppi2: float
    flips: float
    jain: float
    ttr_s: float | None
    tenants: Mapping[str, float]
    """Good work (15 s) of each tenant / what it asked for."""


def measure(run: History) -> Metrics:
    """All figures of a run."""
    seconds = run.end_s - run.start_s
    capacity = sum(run.capacities) * seconds
    jobs = [job for job in run.jobs if run.start_s <= job.arrived_s]
    ttfts = sorted(job.first_s - job.arrived_s for job in jobs if job.first_s is not None)
    fates = [job.fate for job in jobs]
    tokens = run.useful_tokens + run.wasted_tokens
    ppi, ppi2 = _ping_pong(run)
    return Metrics(
        offered=sum(job.work for job in jobs) / capacity,
        goodput_60=sum(_good_work(job, run, SLOS_S[0]) for job in run.jobs) / capacity,
        goodput_15=sum(_good_work(job, run, SLOS_S[1]) for job in run.jobs) / capacity,
        ttft_p50_s=_quantile(ttfts, 0.5),
        ttft_p90_s=_quantile(ttfts, 0.9),
        ttft_p99_s=_quantile(ttfts, 0.99),
        done=fates.count(Fate.DONE),
        refused=fates.count(Fate.REFUSED),
        failed=fates.count(Fate.FAILED) + fates.count(Fate.LEFT),
        broken=fates.count(Fate.BROKEN),
        attempts_per_job=sum(job.attempts for job in jobs) / max(1, len(jobs)),
        attempts_max=max((job.attempts for job in jobs), default=0),
        wasted_ratio=run.wasted_tokens / max(1, tokens),
        cai=_availability(run),
        ppi=ppi,
        ppi2=ppi2,
        flips=_flips_per_minute(run),
        jain=_jain(run),
        ttr_s=_recovery_s(run),
        tenants=_tenants(run),
    )


def _good_work(job: Job, run: History, slo_s: float) -> float:
    """The work of a good job that was done while we measured."""
    if job.first_s is None or job.first_s - job.arrived_s > slo_s:
        return 0.0
    if job.fate is Fate.DONE and job.ended_s is not None:
        share, ended_s = 1.0, job.ended_s
    elif job.fate is Fate.PENDING:
        share, ended_s = run.progress.get(job.number, 0.0), run.end_s
    else:
        return 0.0
    took_s = ended_s - job.first_s
    if took_s <= 0:
        return job.work * share if run.start_s <= ended_s <= run.end_s else 0.0
    inside_s = min(ended_s, run.end_s) - max(job.first_s, run.start_s)
    return job.work * share * max(0.0, inside_s) / took_s


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _availability(run: History) -> float:
    ratios = []
    for look in run.measured():
        pairs = list(zip(run.capacities, look.replicas, strict=True))
        healthy = sum(capacity for capacity, r in pairs if r.is_healthy)
        if healthy:
            got = sum(capacity * r.eligible for capacity, r in pairs if r.is_healthy)
            ratios.append(got / healthy)
    return sum(ratios) / len(ratios) if ratios else 1.0


def _ping_pong(run: History) -> tuple[float, float]:
    """Falls of healthy replicas to zero eligibility, and those soon after another's, per hour."""
    falls: list[tuple[float, int]] = []
    for before, look in pairwise(run.measured()):
        for r, (was, now) in enumerate(zip(before.replicas, look.replicas, strict=True)):
            if was.is_healthy and now.is_healthy and was.eligible > 0.0 == now.eligible:
                falls.append((look.now_s, r))
    pairs = sum(
        any(r != other and at_s - then_s <= PING_PONG_S for then_s, other in falls[:k])
        for k, (at_s, r) in enumerate(falls)
    )
    hours = (run.end_s - run.start_s) / 3600
    return len(falls) / hours, pairs / hours


def _flips_per_minute(run: History) -> float:
    to = [r for at_s, r in run.dispatches if run.start_s <= at_s <= run.end_s]
    flips, last = 0, None
    for k in range(0, len(to) - FLIP_WINDOW + 1, FLIP_WINDOW):
        window = to[k : k + FLIP_WINDOW]
        top = max(set(window), key=window.count)
        if window.count(top) < DOMINANCE * FLIP_WINDOW:
            continue
        flips += last is not None and top != last
        last = top
    return flips / ((run.end_s - run.start_s) / 60)


def _jain(run: History) -> float:
    looks = run.measured()
    done = [
        (last.tokens - first.tokens) / capacity
        for first, last, capacity in zip(
            looks[0].replicas, looks[-1].replicas, run.capacities, strict=True
        )
    ]
    squares = sum(tokens * tokens for tokens in done)
    return sum(done) ** 2 / (len(done) * squares) if squares else 1.0


def _recovery_s(run: History) -> float | None:
    calm_s = run.scenario.calm_from_s
    if calm_s is None:
        return None
    buckets: defaultdict[int, list[Job]] = defaultdict(list)
    for job in run.jobs:
        if calm_s <= job.arrived_s < run.end_s - BUCKET_S:
            buckets[int((job.arrived_s - calm_s) // BUCKET_S)].append(job)
    bad = [k for k, jobs in buckets.items() if _is_bad(jobs)]
    return (max(bad) + 1) * BUCKET_S if bad else 0.0


def _is_bad(jobs: Sequence[Job]) -> bool:
    waits = sorted(j.first_s - j.arrived_s if j.first_s else float("inf") for j in jobs)
    errors = any(job.fate not in {Fate.DONE, Fate.PENDING} for job in jobs)
    return errors or _quantile(waits, 0.9) > BAD_TTFT_S


def _tenants(run: History) -> Mapping[str, float]:
    asked: defaultdict[str, float] = defaultdict(float)
    good: defaultdict[str, float] = defaultdict(float)
    for job in run.jobs:
        if run.start_s <= job.arrived_s <= run.end_s - SLOS_S[1]:  # later ones may still be in time
            asked[job.tenant] += job.work
            good[job.tenant] += job.work * _in_time(job)
    return {tenant: good[tenant] / asked[tenant] for tenant in sorted(asked)}


def good_share(run: History, from_s: float, until_s: float) -> float:
    """Of the jobs that arrived then, those served in time."""
    jobs = [job for job in run.jobs if from_s <= job.arrived_s < until_s]
    return sum(_in_time(job) for job in jobs) / max(1, len(jobs))


def _in_time(job: Job) -> bool:
    in_time = job.first_s is not None and job.first_s - job.arrived_s <= SLOS_S[1]
    return in_time and job.fate in {Fate.DONE, Fate.PENDING}

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sim.world.requests import Fate, Job

FLIP_WINDOW = 40
DOMINANCE = 0.8
PING_PONG_S = 60.0
BUCKET_S = 10.0
BAD_TTFT_S = 2.0
SLOS_S = (60.0, 15.0)


@dataclass(slots=True)
class Samples:
    """What the world looks at periodically, and each dispatch."""

    times_s: list[float] = field(default_factory=list)
    healthy: list[tuple[bool, ...]] = field(default_factory=list)
    eligible: list[tuple[float, ...]] = field(default_factory=list)  # share of gateways
    tokens: list[tuple[int, ...]] = field(default_factory=list)  # made in all, by replica
    dispatches: list[tuple[float, int]] = field(default_factory=list)  # when, to which replica


@dataclass(frozen=True, slots=True)
class Run:
    """What a run leaves behind."""

    jobs: Sequence[Job]
    progress: Mapping[int, float]  # share done of jobs still running, by number
    samples: Samples
    capacities: tuple[float, ...]  # of each replica, work per second
    start_s: float
    end_s: float
    calm_from_s: float | None
    wasted_tokens: int
    useful_tokens: int
    waits_asked_s: Sequence[float]


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


def measure(run: Run) -> Metrics:
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


def _good_work(job: Job, run: Run, slo_s: float) -> float:
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


def _measured(run: Run) -> Iterable[int]:
    times = run.samples.times_s
    return (i for i in range(len(times)) if run.start_s <= times[i] <= run.end_s)


def _availability(run: Run) -> float:
    ratios = []
    for i in _measured(run):
        pairs = list(zip(run.capacities, run.samples.healthy[i], strict=True))
        healthy = sum(c for c, well in pairs if well)
        if healthy:
            eligible = run.samples.eligible[i]
            got = sum(c * e for (c, well), e in zip(pairs, eligible, strict=True) if well)
            ratios.append(got / healthy)
    return sum(ratios) / len(ratios) if ratios else 1.0


def _ping_pong(run: Run) -> tuple[float, float]:
    """Falls of healthy replicas to zero eligibility, and those soon after another's, per hour."""
    falls: list[tuple[float, int]] = []
    samples = run.samples
    for i in _measured(run):
        for r in range(len(run.capacities) if i else 0):
            well = samples.healthy[i - 1][r] and samples.healthy[i][r]
            if well and samples.eligible[i - 1][r] > 0.0 == samples.eligible[i][r]:
                falls.append((samples.times_s[i], r))
    pairs = sum(
        any(r != other and 0.0 <= at_s - then_s <= PING_PONG_S for then_s, other in falls[:k])
        for k, (at_s, r) in enumerate(falls)
    )
    hours = (run.end_s - run.start_s) / 3600
    return len(falls) / hours, pairs / hours


def _flips_per_minute(run: Run) -> float:
    to = [r for at_s, r in run.samples.dispatches if run.start_s <= at_s <= run.end_s]
    flips, last = 0, None
    for k in range(0, len(to) - FLIP_WINDOW + 1, FLIP_WINDOW):
        window = to[k : k + FLIP_WINDOW]
        top = max(set(window), key=window.count)
        if window.count(top) < DOMINANCE * FLIP_WINDOW:
            continue
        flips += last is not None and top != last
        last = top
    return flips / ((run.end_s - run.start_s) / 60)


def _jain(run: Run) -> float:
    made = [0.0] * len(run.capacities)
    before: tuple[int, ...] | None = None
    for i in _measured(run):
        now = run.samples.tokens[i]
        if before is not None:
            for r, tokens in enumerate(now):
                made[r] += max(0, tokens - before[r]) / run.capacities[r]
        before = now
    squares = sum(m * m for m in made)
    return sum(made) ** 2 / (len(made) * squares) if squares else 1.0


def _recovery_s(run: Run) -> float | None:
    calm_s = run.calm_from_s
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


def _tenants(run: Run) -> Mapping[str, float]:
    asked: defaultdict[str, float] = defaultdict(float)
    good: defaultdict[str, float] = defaultdict(float)
    for job in run.jobs:
        if run.start_s <= job.arrived_s <= run.end_s:
            asked[job.tenant] += job.work
            in_time = job.first_s is not None and job.first_s - job.arrived_s <= SLOS_S[1]
            good[job.tenant] += job.work * (in_time and job.fate in {Fate.DONE, Fate.PENDING})
    return {tenant: good[tenant] / asked[tenant] for tenant in sorted(asked)}

"""What agents and edges say in this bench: as the real ones at 70 % load, and never twice the same.

Rules: values come from a seeded dice; an agent's counters only grow; an edge's report is about the
replicas that it has credits for, as an edge under load uses those.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.core.uses import folded
from trimtab.model import (
    Cohort,
    EdgeReport,
    EngineFacts,
    EngineSample,
    EngineState,
    GpuProcess,
    GpuSample,
    HistogramDelta,
    LimitSource,
    Outcome,
    OutcomeCount,
    PoolUse,
    ReplicaUse,
    Report,
    TenantUse,
)

POOLS = 4
MAX_NUM_SEQS = 64
LOAD = 0.7
PERIOD_S = 0.5
ENDS_PER_S = 0.1
"""Of one request: an answer takes 10 s."""
WAITS_RATIO = 0.02
"""Reports of an edge that tell of requests that wait, of one pool."""
GIB = 2**30


def pool_name(number: int) -> str:
    """Replicas are spread over the pools."""
    return f"model-{number % POOLS}"


@dataclass(slots=True)
class Engine:
    """One engine as its agent sees it."""

    number: int
    dice: random.Random
    state: EngineState = EngineState.READY
    epoch: int = 1
    seq: int = 0
    tokens: int = 0
    finished: int = 0
    per_node: int = 1

    @property
    def node(self) -> str:
        """The machine."""
        return f"node-{self.number // self.per_node:05}"

    @property
    def replica(self) -> str:
        """Its name."""
        return f"{self.node}-{8000 + self.number % self.per_node}"

    def facts(self) -> EngineFacts:
        """What is said at the start."""
        return EngineFacts(
            replica=self.replica,
            url=f"http://10.{self.number >> 8}.{self.number & 255}.1:8000",
            served_models=(pool_name(self.number),),
            max_model_len_tokens=131_072,
            max_num_seqs=MAX_NUM_SEQS,
            max_num_seqs_source=LimitSource.COMMAND_LINE,
            kv_cache_tokens=1_000_000,
            vllm_version="0.32.0",
            epoch=self.epoch,
            uptime_ms=1_000_000,
        )

    def report(self) -> Report:
        """The next periodic reading."""
        self.seq += 1
        lives = self.state is EngineState.READY
        running = round(LOAD * MAX_NUM_SEQS) + self.dice.randint(-4, 4) if lives else 0
        self.tokens += 15 * running
        self.finished += self.dice.randint(0, 5) if lives else 0
        return Report(self.seq, (self._sample(running),), (self._gpu(),))

    def _sample(self, running: int) -> EngineSample:
        return EngineSample(
            replica=self.replica,
            state=self.state,
            state_age_ms=500 * self.seq,
            epoch=self.epoch,
            metrics_age_ms=self.dice.randint(1, 400),
            running=running,
            waiting=self.dice.randint(0, 1),
            kv_cache_usage_ratio=self.dice.uniform(0.4, 0.7),
            prompt_tokens_total=3 * self.tokens,
            generation_tokens_total=self.tokens,
            steps_total=self.seq * 20,
            preemptions_total=0,
            finished_total=self.finished,
            rejections_total=0,
            prefix_cache_queries_tokens_total=3 * self.tokens,
            prefix_cache_hits_tokens_total=self.tokens,
            ttft=_histogram(self.dice, (0.1, 0.25, 0.5), running // 20),
            itl=_histogram(self.dice, (0.025, 0.05, 0.075, 0.1), 15 * running),
            gpus=(0,),
        )

    def _gpu(self) -> GpuSample:
        return GpuSample(
            index=0,
            uuid=f"GPU-{self.number:032x}",
            name="NVIDIA H200",
            memory_total_bytes=141 * GIB,
            memory_used_bytes=130 * GIB,
            utilization_ratio=self.dice.random(),
            temperature_celsius=self.dice.randint(50, 70),
            power_watts=self.dice.uniform(300.0, 700.0),
            throttle_reasons=0,
            ecc_corrected_total=0,
            ecc_uncorrected_total=0,
            processes=(GpuProcess(4242, 130 * GIB),),
        )


def _histogram(dice: random.Random, bounds_s: Sequence[float], count: int) -> HistogramDelta:
    counts = tuple(dice.randint(0, 1 + count) for _ in bounds_s)
    return HistogramDelta(tuple(bounds_s), counts, sum_s=0.03 * sum(counts))


def edge_report(seq: int, slots: Mapping[str, int], dice: random.Random) -> EdgeReport:
    """An edge that uses its credits to LOAD."""
    uses = (_use(replica, count, dice) for replica, count in slots.items() if count)
    told = tuple(use for use in uses if use.inflight)  # as an edge leaves out what is idle
    return folded(EdgeReport(seq, told, tuple(_pool(number, dice) for number in range(POOLS))))


def _use(replica: str, slots: int, dice: random.Random) -> ReplicaUse:
    inflight = sum(dice.random() < LOAD for _ in range(slots))
    ended = int(dice.random() < ENDS_PER_S * PERIOD_S * inflight)
    outcomes = (OutcomeCount(Outcome.OK, ended),) if ended else ()
    cohorts = (Cohort(10_300, 0, outcomes), Cohort(200, ended)) if ended else ()
    return ReplicaUse(replica, inflight, ended, outcomes, cohorts=cohorts, tokens=15 * inflight)


def _pool(number: int, dice: random.Random) -> PoolUse:
    waits = dice.random() < WAITS_RATIO
    ages_ms = (300, 200) if waits else ()
    names = ("team-a", "team-b", "team-c")
    charges = [dice.uniform(100.0, 900.0) for _ in names]
    tenants = tuple(TenantUse(t, charged_work=c) for t, c in zip(names, charges, strict=True))
    if waits:
        first = TenantUse(names[0], queued=2, queued_work=600.0, ages_ms=ages_ms)
        tenants = (first, *tenants[1:])
    requests = dice.randint(5, 15)
    return PoolUse(pool_name(number), 2 * waits, 300 * waits, requests, 0, tenants)

"""Recordings of simulated fleets: what edges would have kept of a scenario's arrivals."""

from __future__ import annotations

from functools import partial

from sim.world.replica import Attempt
from sim.world.requests import Fate, Job
from sim.world.scenario import Scenario
from sim.world.world import BOOT_S, World
from trimtab.recording import Arrival, End, Head, Policy, Recording, Replica, Tenant

ENDS = {
    Fate.DONE: End.SERVED,
    Fate.REFUSED: End.REFUSED,
    Fate.LEFT: End.LEFT,
    Fate.FAILED: End.FAILED,
    Fate.BROKEN: End.FAILED,
}


SETTLE_S = 60.0  # as ctl leaves for answers to end


def recorded(scenario: Scenario, seed: int = 1) -> Recording:
    """Run it, and keep what edges see; its clients should not retry."""
    world = World(scenario, "trimtab", seed)
    placed_s: dict[int, float] = {}
    for replica in world.replicas.values():
        replica.post = partial(_post, placed_s, replica.post)  # type: ignore[method-assign]
    world.run()
    tenants = sorted({source.tenant for source in scenario.sources})
    head = Head(
        pool="m",
        began_ms=1_800_000_000_000,
        span_s=scenario.duration_s - scenario.warmup_s - SETTLE_S,
        lead_s=scenario.warmup_s - BOOT_S,
        edges=scenario.edges,
        policy=Policy(queue_limit=scenario.queue_limit, queue_wait_s=scenario.queue_wait_s),
        replicas=tuple(
            Replica(
                name=name,
                max_num_seqs=spec.slots,
                kv_cache_tokens=spec.kv_tokens,
                max_model_len_tokens=spec.model_len_tokens,
            )
            for name, spec in zip(scenario.replica_names(), scenario.replicas, strict=True)
        ),
        tenants=tuple(Tenant(name) for name in tenants),
    )
    arrivals = [
        _arrival(job, tenants.index(job.tenant), placed_s.get(job.number), scenario.warmup_s)
        for job in world.jobs
        if job.fate in ENDS
    ]
    return Recording(head, arrivals)


def _post(placed_s, post, attempt: Attempt, *, is_probe: bool = False) -> None:  # type: ignore[no-untyped-def]
    placed_s[attempt.job.number] = attempt.posted_s
    post(attempt, is_probe=is_probe)


def _arrival(job: Job, tenant: int, placed_s: float | None, zero_s: float) -> Arrival:
    ended_s = job.ended_s or 0.0
    return Arrival(
        at_s=job.arrived_s - zero_s,
        tenant=tenant,
        prompt_tokens=job.prompt_tokens,
        output_tokens=job.output_tokens if job.fate is Fate.DONE else 0,
        end=ENDS[job.fate],
        is_stream=True,
        retry=0,
        wait_s=max(0.0, (ended_s if placed_s is None else placed_s) - job.arrived_s),
        first_s=None if job.first_s is None else job.first_s - job.arrived_s,
        lasted_s=ended_s - job.arrived_s,
    )

"""Recorded arrivals, gathered from the fleet: one recording out of what all edges remember.

Rules: the last minute is not counted, for its answers are still on their way; before what is
counted comes a lead, in which the simulated fleet fills; nothing is counted from before the time
that every edge remembers, or the load would look lower than it was.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from ctl.exits import CtlError, Exit
from trimtab.recording import Arrival, End, Head, Policy, Recording, Replica, Tenant
from trimtab.v1 import whatif_pb2 as pb
from trimtab.v1 import whatif_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from ctl.client import Client

DEADLINE_S = 120.0  # a hundred edges, a block at a time
SETTLE_S = 60.0
LEAD_S = 120.0
SPAN_MIN_S = 60.0
_ENDS = {end.value: end for end in End}
Parts = tuple[pb.PoolFacts, list[pb.ArrivalBlock], tuple[str, ...]]


async def gather(plane: Client, pool: str, last_s: float) -> Recording:
    """What came in the last `last_s`, less what is not settled yet; raises CtlError."""
    ask = pb.RecordedArrivalsRequest(pool=pool, last_ms=round(1000 * (last_s + LEAD_S + SETTLE_S)))

    async def call(channel: grpc.aio.Channel) -> list[pb.RecordedArrivalsResponse]:
        stub = whatif_pb2_grpc.WhatIfServiceStub(channel)
        answers = stub.RecordedArrivals(ask, timeout=DEADLINE_S, metadata=plane.metadata)
        return [part async for part in answers]

    parts = await plane.ask(call)
    if len(parts) < 2 or not parts[0].HasField("facts") or not parts[-1].HasField("end"):
        raise CtlError(Exit.FAILED, "the control plane told only a part of it; try again")
    blocks = [part.block for part in parts if part.HasField("block")]
    return recording((parts[0].facts, blocks, tuple(parts[-1].end.silent)), last_s)


def recording(parts: Parts, last_s: float) -> Recording:
    """One recording out of what was told; raises CtlError when that is too little."""
    facts, blocks, silent = parts
    until_ms = facts.now_ms - 1000.0 * SETTLE_S
    asked_ms = until_ms - 1000.0 * last_s
    known_ms = max([block.forgot_before_ms for block in blocks], default=facts.now_ms)
    began_ms = max(asked_ms, known_ms)
    span_s = (until_ms - began_ms) / 1000
    if span_s < SPAN_MIN_S:
        who = f"edges that do not answer: {', '.join(silent)}" if silent else "all edges"
        raise CtlError(
            Exit.CONFLICT,
            f"too little is remembered of {facts.pool} ({who}): a simulation needs arrivals of"
            f" {SPAN_MIN_S:.0f} s and more, and the last {SETTLE_S:.0f} s do not count.\n"
            "Next: wait until every edge has run for 2 minutes.",
        )
    lead_s = min(LEAD_S, (began_ms - known_ms) / 1000)
    tenants: dict[tuple[str, int], int] = {}
    arrivals = [
        arrival
        for block in blocks
        for arrival in _arrivals(block, tenants, began_ms)
        if arrival.at_s >= -lead_s
    ]
    head = Head(
        pool=facts.pool,
        began_ms=round(began_ms),
        span_s=round(span_s, 3),
        lead_s=round(lead_s, 3),
        edges=max(1, facts.edges - len(silent)),
        missing_s=round((began_ms - asked_ms) / 1000, 3),
        silent=silent,
        policy=Policy(
            queue_limit=facts.queue_limit,
            queue_wait_s=facts.queue_wait_ms / 1000,
            hedge=facts.hedge,
        ),
        replicas=tuple(_replica(told) for told in facts.replicas),
        tenants=tuple(Tenant(name, urgency) for name, urgency in tenants),
    )
    return Recording(head, sorted(arrivals, key=lambda arrival: arrival.at_s))


def _replica(told: pb.ReplicaFacts) -> Replica:
    return Replica(
        name=told.replica,
        max_num_seqs=max(1, told.max_num_seqs),
        kv_cache_tokens=told.kv_cache_tokens,
        max_model_len_tokens=told.max_model_len_tokens,
    )


def _arrivals(
    block: pb.ArrivalBlock, tenants: dict[tuple[str, int], int], began_ms: float
) -> Sequence[Arrival]:
    names = zip(block.tenants, block.urgency, strict=True)
    whose = [tenants.setdefault(name, len(tenants)) for name in names]
    columns = zip(
        accumulate(block.gap_ms),
        *(block.tenant, block.prompt_tokens, block.output_tokens, block.end, block.stream),
        *(block.retry, block.wait_ms, block.first_ms_1, block.lasted_ms),
        strict=True,
    )
    return [
        Arrival(
            at_s=round((came - began_ms) / 1000, 3),
            tenant=whose[who],
            prompt_tokens=prompt,
            output_tokens=output,
            end=_ENDS.get(end, End.UNKNOWN),
            is_stream=stream,
            retry=min(retry, 255),
            wait_s=wait / 1000,
            first_s=(first - 1) / 1000 if first else None,
            lasted_s=lasted / 1000,
        )
        for came, who, prompt, output, end, stream, retry, wait, first, lasted in columns
    ]

"""WhatIfService: the pool as it is now, and what edges remember of its arrivals, for a simulation.

Rules: edges are asked one after the other, a block at a time, and what they tell is checked before
it goes on; one that does not answer, or tells nonsense, is named and left out; at most ASKING_MAX
callers at once, BLOCKS_MAX blocks an edge.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from controlplane.core.bounds import clip
from controlplane.loop import ControlLoop
from controlplane.questions import BusyError
from controlplane.seat import Seat
from trimtab.model import Serving
from trimtab.runtime import clock
from trimtab.v1 import whatif_pb2, whatif_pb2_grpc
from trimtab.v1.whatif_pb2 import ArrivalBlock, RecordedArrivalsEnd, RecordedArrivalsResponse

NAME = whatif_pb2.DESCRIPTOR.services_by_name["WhatIfService"].full_name
ASKING_MAX = 2  # each keeps the edges telling for a second or more
BLOCKS_MAX = 128  # of one edge: more than it keeps
ROWS_MAX = 65_536  # in a block
COLUMNS = (
    *("tenant", "prompt_tokens", "output_tokens", "end"),
    *("stream", "retry", "wait_ms", "first_ms_1", "lasted_ms"),
)
Context = grpc.aio.ServicerContext[Any, Any]


def register(seat: Seat, server: grpc.aio.Server) -> None:
    """Offer it."""
    whatif_pb2_grpc.add_WhatIfServiceServicer_to_server(WhatIfService(seat), server)


class WhatIfService(whatif_pb2_grpc.WhatIfServiceServicer):
    """See the rules at the top of this file."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._asking = 0

    async def RecordedArrivals(  # noqa: N802 - the proto's name
        self, request: whatif_pb2.RecordedArrivalsRequest, context: Context
    ) -> AsyncIterator[RecordedArrivalsResponse]:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        facts = await _facts(loop, request.pool, context)
        if self._asking >= ASKING_MAX:
            text = f"{ASKING_MAX} others are asking the edges for arrivals; try again"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._asking += 1
        try:
            yield RecordedArrivalsResponse(facts=facts)
            silent: list[str] = []
            for edge in [view.edge for view in loop.fleet().edges]:
                since_ms = facts.now_ms - request.last_ms
                async for block in _blocks(loop, edge, facts.pool, since_ms, silent):
                    yield RecordedArrivalsResponse(block=block)
            yield RecordedArrivalsResponse(end=RecordedArrivalsEnd(silent=silent))
        except BusyError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        finally:
            self._asking -= 1


async def _blocks(
    loop: ControlLoop, edge: str, pool: str, since_ms: int, silent: list[str]
) -> AsyncIterator[ArrivalBlock]:
    """What one edge tells; who tells nothing, or not all, is noted as silent."""
    ask, number = {"pool": pool, "since_ms": since_ms}, 0
    for _ in range(BLOCKS_MAX):
        told = await loop.ask_edges("arrivals", json.dumps({**ask, "block": number}), edge)
        block = _block(told[0].content) if told and not told[0].error else None
        if block is None:
            silent.append(edge)
            return
        yield block
        if not block.more:
            return
        number = block.next


def _block(content: bytes) -> ArrivalBlock | None:
    """What an edge told, if it is whole and within bounds."""
    try:
        block = ArrivalBlock.FromString(content)
    except DecodeError:
        return None
    rows = len(block.gap_ms)
    lengths = {len(getattr(block, name)) for name in COLUMNS}
    known = range(len(block.tenants))
    is_sound = rows <= ROWS_MAX and lengths == {rows} and len(block.urgency) == len(known)
    return block if is_sound and all(index in known for index in block.tenant) else None


async def _facts(loop: ControlLoop, pool: str, context: Context) -> whatif_pb2.PoolFacts:
    """The pool as it is now."""
    fleet, live = loop.fleet(), loop.live.now
    names = sorted(view.pool for view in fleet.pools)
    if not pool and len(names) == 1:
        pool = names[0]
    if pool not in names:
        asked = f"there is no model {clip(pool)!r}" if pool else "which model?"
        text = f"{asked}; there are {', '.join(names) or 'none'}"
        await context.abort(grpc.StatusCode.NOT_FOUND, text)
    hedges = {known.name for known in live.placement.pools if known.hedge}
    replicas = []
    for view in fleet.replicas:
        if view.route.pool != pool or view.route.serving is not Serving.OPEN:
            continue
        known_facts = loop.registry.replicas[view.route.replica].facts
        replicas.append(
            whatif_pb2.ReplicaFacts(
                replica=view.route.replica,
                max_num_seqs=view.max_num_seqs,
                kv_cache_tokens=(known_facts.kv_cache_tokens or 0) if known_facts else 0,
                max_model_len_tokens=view.route.max_model_len_tokens or 0,
            )
        )
    if not replicas:
        text = f"no replica of {pool} may get requests now: there is nothing to simulate"
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
    return whatif_pb2.PoolFacts(
        pool=pool,
        replicas=replicas,
        edges=len(fleet.edges),
        queue_limit=live.policy.queue_limit,
        queue_wait_ms=live.policy.queue_wait_ms,
        hedge=pool in hedges,
        now_ms=round(1000 * clock.wall_s()),
    )

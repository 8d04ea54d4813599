"""DoctorService: how the fleet is set up, for `ctl doctor` to judge.

Rules: the store is measured and the edges are asked when somebody wants to know; what agents told
is as old as a minute. Whoever did not answer is named, with why.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from controlplane.core.bounds import clip
from controlplane.loop import ControlLoop
from controlplane.questions import BusyError, Told
from controlplane.seat import Seat
from controlplane.store.protocol import StoreError
from trimtab.codec import WireError, decode, encode
from trimtab.facts import FleetFacts, PeerFacts, ProcessFacts
from trimtab.model import Urgency
from trimtab.runtime import clock
from trimtab.runtime.own_facts import own_facts
from trimtab.v1 import doctor_pb2 as pb
from trimtab.v1 import doctor_pb2_grpc

NAME = pb.DESCRIPTOR.services_by_name["DoctorService"].full_name
Context = grpc.aio.ServicerContext[Any, Any]
register = doctor_pb2_grpc.add_DoctorServiceServicer_to_server


class DoctorService(doctor_pb2_grpc.DoctorServiceServicer):
    """Only the leader can answer: agents and edges speak to nobody else."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def GetFacts(  # noqa: N802 - the proto's name
        self, request: pb.GetFactsRequest, context: Context
    ) -> pb.GetFactsResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        try:
            facts = await _facts(loop)
        except BusyError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        return pb.GetFactsResponse(facts=encode(facts))


async def _facts(loop: ControlLoop) -> FleetFacts:
    asked_s = clock.wall_s()
    told = await loop.ask_edges("process", "")
    read_s = write_s = None
    problem = ""
    try:
        read_s, write_s = await loop.probe_store()
    except StoreError as error:
        problem = clip(str(error))
    live = loop.live.now
    return FleetFacts(
        leader=own_facts(),
        store=loop.settings.store,
        store_read_s=read_s,
        store_write_s=write_s,
        store_error=problem,
        agents=tuple(_agents(loop)),
        edges=tuple(_edge(one, asked_s) for one in told),
        uses_classes=any(key.urgency is not Urgency.DEFAULT for key in live.keys),
        queue_limit=live.policy.queue_limit,
    )


def _agents(loop: ControlLoop) -> list[PeerFacts]:
    found = []
    for name, node in sorted(loop.registry.agents.by_node.items()):
        if node.setup is not None:
            setup = node.setup
            found.append(PeerFacts(name, node.ahead_s, setup.process, setup.engines))
        elif node.stream is not None:
            found.append(PeerFacts(name, error="it is of a version that does not say"))
    return found


def _edge(told: Told, asked_s: float) -> PeerFacts:
    if told.error:
        return PeerFacts(told.edge, error=told.error)
    try:
        process = decode(pb.ProcessFacts.FromString(told.content), ProcessFacts)
    except (DecodeError, WireError) as error:
        return PeerFacts(told.edge, error=clip(str(error)))
    # it answered between the question and now: no more than the whole time is its own
    at_s = process.at_ms / 1000
    ahead_s = at_s - min(max(at_s, asked_s), clock.wall_s())
    return PeerFacts(told.edge, round(ahead_s, 3), process)

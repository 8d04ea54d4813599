"""SteerService: what operators change by hand, and the record of it, for ctl."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc

from controlplane import audit, guard, steering
from controlplane.core.bounds import clip
from controlplane.loop import ControlLoop
from controlplane.probes import BusyError
from controlplane.seat import Seat
from controlplane.steering import ConflictError
from controlplane.store.protocol import StoreError
from trimtab import codec
from trimtab.codec import WireError, encode
from trimtab.model import Intent
from trimtab.steered import Order, Override, OverrideKind, Share
from trimtab.v1 import steer_pb2 as pb
from trimtab.v1 import steer_pb2_grpc, types_pb2

NAME = pb.DESCRIPTOR.services_by_name["SteerService"].full_name
PART_MAX = 256
Context = grpc.aio.ServicerContext[Any, Any]


@asynccontextmanager
async def explained(
    context: Context, known: Iterable[str] = (), what: str = "replica"
) -> AsyncIterator[None]:
    """Say what went wrong in gRPC's words; `known` are the names that a KeyError may have meant."""
    try:
        yield
    except KeyError as error:
        name = str(error.args[0])
        close = difflib.get_close_matches(name, list(known), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        text = f"there is no {what} {clip(name)!r}{hint}"
        await context.abort(grpc.StatusCode.NOT_FOUND, text)
    except (ValueError, WireError) as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except ConflictError as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except BusyError as error:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
    except StoreError as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"not set: {error}")


class SteerService(steer_pb2_grpc.SteerServiceServicer):
    """What operators do."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def SetIntents(  # noqa: N802 - the proto's name
        self, request: pb.SetIntentsRequest, context: Context
    ) -> pb.SetIntentsResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        async with explained(context, loop.replica_names()):
            revision, previous = await steering.set_intents(
                loop, list(request.replicas), Intent(int(request.intent)), _order(request.order)
            )
            before = [types_pb2.Intent.ValueType(one) for one in previous]
            return pb.SetIntentsResponse(revision=revision, previous=before)

    async def SetOverride(  # noqa: N802 - the proto's name
        self, request: pb.SetOverrideRequest, context: Context
    ) -> pb.SetOverrideResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        async with explained(context, *_names(loop, request.kind)):
            shares = tuple(codec.decode(share, Share) for share in request.weights)
            wanted = Override(OverrideKind(int(request.kind)), request.target, shares)
            order = _order(request.order)
            revision, old = await steering.set_override(loop, wanted, request.for_ms, order)
            before = encode(old) if old else None
            return pb.SetOverrideResponse(revision=revision, previous=before)

    async def ResetBreaker(  # noqa: N802 - the proto's name
        self, request: pb.ResetBreakerRequest, context: Context
    ) -> pb.ResetBreakerResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        async with explained(context, loop.replica_names()):
            order = _order(request.order)
            revision, was = await steering.reset_breaker(loop, request.replica, order)
            return pb.ResetBreakerResponse(revision=revision, previous=was)

    async def ProbeReplica(  # noqa: N802 - the proto's name
        self, request: pb.ProbeReplicaRequest, context: Context
    ) -> pb.ProbeReplicaResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        async with explained(context, loop.replica_names()):
            node = loop.registry.replicas[request.replica].node
            result = await steering.probe(loop, request.replica, request.timeout_ms)
        if result is None:
            text = f"the agent of {request.replica} on {node or 'no node'} is not there or silent"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        return pb.ProbeReplicaResponse(
            ok=result.ok, detail=clip(result.detail), duration_ms=result.duration_ms, node=node
        )

    async def ListAudit(  # noqa: N802 - the proto's name
        self, request: pb.ListAuditRequest, context: Context
    ) -> AsyncIterator[pb.ListAuditResponse]:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        async with explained(context):
            entries, newest = await audit.read(loop.store)
        yield pb.ListAuditResponse(newest=encode(newest) if newest else None)
        found = [
            encode(one)
            for one in entries
            if one.at_ms >= request.since_ms and request.actor in {"", one.actor}
        ]
        for start in range(0, len(found), PART_MAX):
            yield pb.ListAuditResponse(entries=found[start : start + PART_MAX])


def _order(asked: pb.Order) -> Order:
    revision = asked.if_revision if asked.HasField("if_revision") else None
    asks = guard.order(asked.actor, asked.reason, revision)
    return replace(asks, outage_ok=asked.outage_ok)


def _names(loop: ControlLoop, kind: int) -> tuple[Iterable[str], str]:
    if kind == OverrideKind.WEIGHTS:
        return loop.registry.pools(), "pool"
    if kind == OverrideKind.EDGE_DRAIN:
        return loop.registry.edges.by_name, "edge"
    return loop.replica_names(), "replica"

"""AdminService: reads, watches, intents and the stored state, for ctl and the status page."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc

from controlplane import explaining, guard, service_events, service_state
from controlplane.core.bounds import clip
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from controlplane.service_steer import explained
from controlplane.steering import set_intents
from controlplane.store.protocol import StoreError
from trimtab.codec import encode
from trimtab.model import Intent
from trimtab.v1 import admin_pb2, admin_pb2_grpc, types_pb2
from trimtab.views import Fleet

NAME = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
PERIOD_DEFAULT_MS = 1_000
PERIOD_LEAST_MS = 200
WATCHER_LIMIT = 32  # each costs a rendering of the fleet a period
Context = grpc.aio.ServicerContext[Any, Any]


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """What operators ask and say."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._watchers = 0

    async def GetFleet(  # noqa: N802 - the proto's name
        self, request: admin_pb2.GetFleetRequest, context: Context
    ) -> admin_pb2.GetFleetResponse:
        """See the proto."""
        return admin_pb2.GetFleetResponse(fleet=encode(await self._fleet(context)))

    async def WatchFleet(  # noqa: N802 - the proto's name
        self, request: admin_pb2.WatchFleetRequest, context: Context
    ) -> AsyncIterator[admin_pb2.WatchFleetResponse]:
        """See the proto."""
        period_ms = max(PERIOD_LEAST_MS, request.period_ms or PERIOD_DEFAULT_MS)
        await self._one_more(context)
        try:
            last = None
            while True:
                fleet = await self._fleet(context)
                if fleet != last:
                    yield admin_pb2.WatchFleetResponse(fleet=encode(fleet))
                    last = fleet
                await asyncio.sleep(period_ms / 1000)
        finally:
            self._watchers -= 1

    async def SetIntent(  # noqa: N802 - the proto's name
        self, request: admin_pb2.SetIntentRequest, context: Context
    ) -> admin_pb2.SetIntentResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        if not request.actor:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "actor must say who asks")
        asked = replace(guard.order(request.actor, request.reason), outage_ok=True)  # it can't say
        async with explained(context, loop.replica_names()):
            revision, (previous,) = await set_intents(
                loop, [request.replica], Intent(int(request.intent)), asked
            )
        number = types_pb2.Intent.ValueType(previous)
        return admin_pb2.SetIntentResponse(revision=revision, previous=number)

    async def ExplainReplica(  # noqa: N802 - the proto's name
        self, request: admin_pb2.ExplainReplicaRequest, context: Context
    ) -> admin_pb2.ExplainReplicaResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        await _known(loop, request.replica, context)
        found = await explaining.replica(loop, request.replica)
        return admin_pb2.ExplainReplicaResponse(explanation=encode(found))

    async def WatchEvents(  # noqa: N802 - the proto's name
        self, request: admin_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[admin_pb2.WatchEventsResponse]:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        await self._one_more(context)
        try:
            async for part in service_events.watch(self._seat, loop, request):
                yield part
        finally:
            self._watchers -= 1

    async def SaveState(  # noqa: N802 - the proto's name
        self, request: admin_pb2.SaveStateRequest, context: Context
    ) -> AsyncIterator[admin_pb2.SaveStateResponse]:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        async for part in service_state.save(loop, context):
            yield part

    async def RestoreState(  # noqa: N802 - the proto's name
        self, request_iterator: AsyncIterator[admin_pb2.RestoreStateRequest], context: Context
    ) -> admin_pb2.RestoreStateResponse:
        """See the proto."""
        return await service_state.restore(self._seat, request_iterator, context)

    async def _one_more(self, context: Context) -> None:
        if self._watchers >= WATCHER_LIMIT:
            text = f"{WATCHER_LIMIT} others are watching already"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._watchers += 1

    async def _fleet(self, context: Context) -> Fleet:
        """Ours if we lead; while nobody does, what is stored."""
        seat = self._seat
        await seat.wait(context)
        if seat.loop is not None:
            return seat.loop.fleet()
        if seat.leader:
            await seat.refuse(context)
        try:
            return await seat.stored_fleet()
        except StoreError as error:
            text = f"no control plane leads now, and the store fails: {error}"
            await context.abort(grpc.StatusCode.UNAVAILABLE, text)


async def _known(loop: ControlLoop, replica: str, context: Context) -> None:
    """Refuse to speak of a replica that is not there."""
    names = loop.replica_names()
    if replica not in names:
        close = difflib.get_close_matches(replica, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        text = f"there is no replica {clip(replica)!r}{hint}"
        await context.abort(grpc.StatusCode.NOT_FOUND, text)

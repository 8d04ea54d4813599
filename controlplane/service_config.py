"""ConfigService: the configuration in effect, another one, and the history; for operators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from controlplane.core import live
from controlplane.core.bounds import clip
from controlplane.core.records import ConfigRecord
from controlplane.guard import caller
from controlplane.live import BadConfigError, StaleConfigError, UnknownRevisionError
from controlplane.seat import Seat
from controlplane.store.protocol import StoreError
from trimtab.codec import WireError, decode, encode
from trimtab.v1 import config_pb2 as pb
from trimtab.v1 import config_pb2_grpc
from trimtab.views import LiveConfig

NAME = pb.DESCRIPTOR.services_by_name["ConfigService"].full_name
Context = grpc.aio.ServicerContext[Any, Any]
register = config_pb2_grpc.add_ConfigServiceServicer_to_server


@asynccontextmanager
async def _explained(context: Context) -> AsyncIterator[None]:
    """Say what went wrong in gRPC's words."""
    try:
        yield
    except (BadConfigError, WireError) as error:
        text = f"{error}\nNothing was applied."
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
    except StaleConfigError as error:
        text = f"{error}. Nothing was applied."
        await context.abort(grpc.StatusCode.ABORTED, text)
    except UnknownRevisionError as error:
        await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
    except StoreError as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"not done: {error}")


class ConfigService(config_pb2_grpc.ConfigServiceServicer):
    """What operators configure while everything runs."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def GetConfig(  # noqa: N802 - the proto's name
        self, request: pb.GetConfigRequest, context: Context
    ) -> pb.GetConfigResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        async with _explained(context):
            now = loop.live.record
            asked = request.revision if request.HasField("revision") else now.revision
            record = now if asked == now.revision else await loop.live.find(asked)
            config = loop.live.of(record)
            return pb.GetConfigResponse(
                revision=encode(live.view(record, config, loop.settings.name)),
                config=encode(config),
                settings=[encode(setting) for setting in loop.settings.others],
                current=now.revision,
            )

    async def ApplyConfig(  # noqa: N802 - the proto's name
        self, request: pb.ApplyConfigRequest, context: Context
    ) -> pb.ApplyConfigResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        peer = caller()
        actor = clip(str(peer) if peer else request.actor)
        if not actor:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "actor must say who asks")
        async with _explained(context):
            if request.HasField("rollback_to"):
                config = (await loop.live.find(request.rollback_to)).config
            else:
                config = decode(request.config, LiveConfig)
            wanted = ConfigRecord(config=config, actor=actor, reason=clip(request.reason))
            replicas = loop.registry.replicas.values()
            revision = await loop.live.apply(wanted, request.expected_revision, replicas)
            return pb.ApplyConfigResponse(revision=revision)

    async def ListConfigs(  # noqa: N802 - the proto's name
        self, request: pb.ListConfigsRequest, context: Context
    ) -> pb.ListConfigsResponse:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        async with _explained(context):
            kept = await loop.live.kept()
            name = loop.settings.name
            views = [live.view(record, loop.live.of(record), name) for record in kept]
            return pb.ListConfigsResponse(
                revisions=[encode(view) for view in views], current=loop.live.record.revision
            )

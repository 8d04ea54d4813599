"""ExplainService: why requests, tenants and models are as they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from controlplane import explaining
from controlplane.loop import ControlLoop
from controlplane.questions import BusyError
from controlplane.seat import Seat
from trimtab.codec import encode
from trimtab.v1 import explain_pb2, explain_pb2_grpc
from trimtab.views import Account

NAME = explain_pb2.DESCRIPTOR.services_by_name["ExplainService"].full_name
Context = grpc.aio.ServicerContext[Any, Any]


class ExplainService(explain_pb2_grpc.ExplainServiceServicer):
    """Only the leader can answer: agents and edges speak to nobody else."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def ExplainRequest(  # noqa: N802 - the proto's name
        self, request: explain_pb2.ExplainRequestRequest, context: Context
    ) -> explain_pb2.ExplainResponse:
        """See the proto."""
        return await self._tell(context, lambda loop: explaining.request(loop, request.request_id))

    async def ExplainTenant(  # noqa: N802 - the proto's name
        self, request: explain_pb2.ExplainTenantRequest, context: Context
    ) -> explain_pb2.ExplainResponse:
        """See the proto."""
        return await self._tell(context, lambda loop: explaining.tenant(loop, request.tenant))

    async def ExplainModel(  # noqa: N802 - the proto's name
        self, request: explain_pb2.ExplainModelRequest, context: Context
    ) -> explain_pb2.ExplainResponse:
        """See the proto."""
        return await self._tell(context, lambda loop: explaining.model(loop, request.model))

    async def _tell(
        self, context: Context, tell: Callable[[ControlLoop], Awaitable[Account]]
    ) -> explain_pb2.ExplainResponse:
        loop = await self._seat.loop_or_refuse(context)
        try:
            account = await tell(loop)
        except KeyError as unknown:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(unknown.args[0]))
        except BusyError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        return explain_pb2.ExplainResponse(account=encode(account))


def register(service: ExplainService, server: grpc.aio.Server) -> None:
    """Serve it."""
    explain_pb2_grpc.add_ExplainServiceServicer_to_server(service, server)

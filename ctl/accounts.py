"""Why a request, a tenant or a model is as it is, asked of ExplainService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab import codec
from trimtab.v1 import explain_pb2 as pb
from trimtab.v1 import explain_pb2_grpc
from trimtab.views import Account

if TYPE_CHECKING:
    import grpc

    from ctl.client import Client

DEADLINE_S = 10.0


async def ask(plane: Client, subject: str, name: str) -> Account:
    """The leader's answer."""

    async def call(channel: grpc.aio.Channel) -> pb.ExplainResponse:
        stub, seen = explain_pb2_grpc.ExplainServiceStub(channel), plane.metadata
        if subject == "request":
            request = pb.ExplainRequestRequest(request_id=name)
            return await stub.ExplainRequest(request, timeout=DEADLINE_S, metadata=seen)
        if subject == "tenant":
            tenant = pb.ExplainTenantRequest(tenant=name)
            return await stub.ExplainTenant(tenant, timeout=DEADLINE_S, metadata=seen)
        model = pb.ExplainModelRequest(model=name)
        return await stub.ExplainModel(model, timeout=DEADLINE_S, metadata=seen)

    return codec.decode((await plane.ask(call)).account, Account)

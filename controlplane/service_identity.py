"""IdentityService: renewal for all who are in. NodeService: tokens and revocation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from controlplane.authority import BadRequestError
from controlplane.enrolment import IdentityRecord, NotKnownError, RefusedError, Registrar
from controlplane.guard import caller, order
from controlplane.store.protocol import StoreError
from trimtab.runtime import clock
from trimtab.v1 import identity_pb2 as pb
from trimtab.v1 import identity_pb2_grpc

NAMES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())
Context = grpc.aio.ServicerContext[Any, Any]


@asynccontextmanager
async def _explained(context: Context) -> AsyncIterator[None]:
    """Say what went wrong in gRPC's words."""
    try:
        yield
    except NotKnownError as error:
        await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
    except BadRequestError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except RefusedError as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except StoreError as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"not done: {error}")


class IdentityService(identity_pb2_grpc.IdentityServiceServicer):
    """Renewal."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar

    async def Renew(  # noqa: N802 - the proto's name
        self, request: pb.RenewRequest, context: Context
    ) -> pb.RenewResponse:
        """See the proto."""
        peer = caller()
        if peer is None:
            text = "a caller on the unix socket has no certificate to renew"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        async with _explained(context):
            issued = await self._registrar.renew(peer, request.csr)
            ca = self._registrar.authority.bundle
            return pb.RenewResponse(certificate=issued.certificate, ca=ca)


class NodeService(identity_pb2_grpc.NodeServiceServicer):
    """What operators do; `enroll` is where nodes join, HOST:PORT."""

    def __init__(self, registrar: Registrar, enroll: str) -> None:
        self._registrar = registrar
        self._enroll = enroll

    async def CreateToken(  # noqa: N802 - the proto's name
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        """See the proto."""
        async with _explained(context):
            if not self._enroll:
                raise RefusedError("nodes can't join here: tls.enroll is not set")
            ttl_s = request.ttl_ms / 1000
            by = order(request.actor, request.reason)
            token = await self._registrar.create_token(request.role, request.name, ttl_s, by)
            return pb.CreateTokenResponse(token=token.text(), enroll=self._enroll)

    async def ListTokens(  # noqa: N802 - the proto's name
        self, request: pb.ListTokensRequest, context: Context
    ) -> pb.ListTokensResponse:
        """See the proto."""
        async with _explained(context):
            return pb.ListTokensResponse(
                tokens=[
                    pb.TokenView(
                        id=token_id,
                        role=record.role,
                        name=record.name,
                        expires_in_ms=_left_ms(record.expires_at_s),
                    )
                    for token_id, record in sorted((await self._registrar.tokens()).items())
                ]
            )

    async def RevokeToken(  # noqa: N802 - the proto's name
        self, request: pb.RevokeTokenRequest, context: Context
    ) -> pb.RevokeTokenResponse:
        """See the proto."""
        async with _explained(context):
            await self._registrar.revoke_token(request.id, order(request.actor, request.reason))
            return pb.RevokeTokenResponse()

    async def ListIdentities(  # noqa: N802 - the proto's name
        self, request: pb.ListIdentitiesRequest, context: Context
    ) -> pb.ListIdentitiesResponse:
        """See the proto."""
        async with _explained(context):
            out = await self._registrar.revoked()
            found = _views(await self._registrar.identities(), out)
            return pb.ListIdentitiesResponse(identities=found)

    async def RevokeIdentities(  # noqa: N802 - the proto's name
        self, request: pb.RevokeIdentitiesRequest, context: Context
    ) -> pb.RevokeIdentitiesResponse:
        """See the proto."""
        async with _explained(context):
            by = order(request.actor, request.reason)
            done = await self._registrar.revoke(request.name_or_serial, by)
            return pb.RevokeIdentitiesResponse(identities=_views(done, set(done)))


def _views(known: dict[str, IdentityRecord], out: set[str]) -> list[pb.IdentityView]:
    ordered = sorted(known.items(), key=lambda item: (item[1].role, item[1].name, item[0]))
    return [
        pb.IdentityView(
            serial=serial,
            role=record.role,
            name=record.name,
            expires_in_ms=_left_ms(record.expires_at_s),
            revoked=serial in out,
        )
        for serial, record in ordered
    ]


def _left_ms(expires_at_s: float) -> int:
    return max(0, round((expires_at_s - clock.wall_s()) * 1000))

"""Tokens and certificates as `ctl node` sees them: NodeService, and its answers as pages.

Rule: any control plane answers, leader or not; gRPC's errors become CtlError here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from ctl.client import DEADLINE_S, EXITS, identity
from ctl.columns import span, text
from ctl.exits import CtlError, Exit
from ctl.pages import Page
from ctl.render import Table
from trimtab.runtime import rpc
from trimtab.steered import Order
from trimtab.v1 import identity_pb2 as pb
from trimtab.v1 import identity_pb2_grpc

T = TypeVar("T")


def run(target: str, work: Callable[[Nodes], Awaitable[None]]) -> None:
    """Connect, do the work, disconnect; raises CtlError."""

    async def connected() -> None:
        async with rpc.channel(target, identity()) as channel:
            await work(Nodes(target, channel))

    asyncio.run(connected())


class Nodes:
    """One control plane's NodeService."""

    def __init__(self, target: str, channel: grpc.aio.Channel) -> None:
        self._target = target
        self._stub = identity_pb2_grpc.NodeServiceStub(channel)

    async def create_token(self, role: str, name: str, ttl_ms: int, by: Order) -> Page:
        """The line for the new node."""
        words = {"actor": by.actor, "reason": by.reason}
        request = pb.CreateTokenRequest(role=role, name=name, ttl_ms=ttl_ms, **words)
        answer = await self._ask(self._stub.CreateToken(request, timeout=DEADLINE_S))
        line = f"trimtab join {answer.enroll} {answer.token}"
        item = {"command": line, "role": role, "name": name, "expires_in_ms": ttl_ms}
        return Page("Token", (item,), (line,), f"{line}\n")

    async def tokens(self) -> Page:
        """Those that can still be used."""
        request = pb.ListTokensRequest()
        answer = await self._ask(self._stub.ListTokens(request, timeout=DEADLINE_S))
        rows = [(t.id, t.role, text(t.name), span(t.expires_in_ms)) for t in answer.tokens]
        table = Table(("ID", "ROLE", "NAME", "EXPIRES IN"), tuple(rows))
        return Page("Token", _items(answer.tokens), tuple(t.id for t in answer.tokens), table)

    async def revoke_token(self, token_id: str, by: Order) -> None:
        """Take it back."""
        request = pb.RevokeTokenRequest(id=token_id, actor=by.actor, reason=by.reason)
        await self._ask(self._stub.RevokeToken(request, timeout=DEADLINE_S))

    async def identities(self) -> Page:
        """The certificates that have not expired."""
        request = pb.ListIdentitiesRequest()
        answer = await self._ask(self._stub.ListIdentities(request, timeout=DEADLINE_S))
        rows = [
            (i.role, text(i.name), span(i.expires_in_ms), "yes" if i.revoked else "no", i.serial)
            for i in answer.identities
        ]
        table = Table(("ROLE", "NAME", "EXPIRES IN", "REVOKED", "SERIAL"), tuple(rows))
        return _certificates(answer.identities, table)

    async def revoke(self, who: str, by: Order) -> Page:
        """Who is out now."""
        words = {"actor": by.actor, "reason": by.reason}
        request = pb.RevokeIdentitiesRequest(name_or_serial=who, **words)
        answer = await self._ask(self._stub.RevokeIdentities(request, timeout=DEADLINE_S))
        done = answer.identities
        lines = [f"{one.role} {text(one.name)} {one.serial}: revoked\n" for one in done]
        return _certificates(done, "".join(lines))

    async def _ask(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            code, why = EXITS.get(error.code(), Exit.FAILED), error.details() or "no detail"
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                why = "this control plane works without TLS: set tls.dir there (docs/security.md)"
            if code is Exit.UNREACHABLE:
                why = f"cannot ask the control plane at {self._target}: {why}"
            raise CtlError(code, why) from None


def _items(answers: Iterable[Message]) -> tuple[dict[str, Any], ...]:
    """The proto's fields under their own names, as everywhere in our data."""
    return tuple({f.name: getattr(one, f.name) for f in one.DESCRIPTOR.fields} for one in answers)


def _certificates(found: Sequence[pb.IdentityView], people: Table | str) -> Page:
    return Page("Certificate", _items(found), tuple(one.serial for one in found), people)

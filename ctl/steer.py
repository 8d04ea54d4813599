"""SteerService as commands see it: changes by hand, and the record of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from ctl.client import DEADLINE_S, Client
from ctl.exits import CtlError, Exit
from trimtab import codec
from trimtab.model import Intent
from trimtab.steered import AuditEntry, Order, Override
from trimtab.v1 import steer_pb2 as pb
from trimtab.v1 import steer_pb2_grpc, types_pb2

DEADLINES_S = {"ProbeReplica": 40.0}  # the engine has 30


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of a probe."""

    ok: bool
    detail: str
    duration_ms: int
    node: str


class Steer:
    """What a client's control plane can be told."""

    def __init__(self, plane: Client) -> None:
        self._plane = plane

    async def set_intents(
        self, replicas: Sequence[str], intent: Intent, order: Order
    ) -> tuple[int, list[Intent]]:
        """State a wish for some replicas; its revision, and what it was."""
        request = pb.SetIntentsRequest(
            replicas=replicas, intent=types_pb2.Intent.ValueType(intent), order=codec.encode(order)
        )
        answer: pb.SetIntentsResponse = await self._ask("SetIntents", request)
        known = {int(one): one for one in Intent}
        return answer.revision, [known.get(int(o), Intent.UNSPECIFIED) for o in answer.previous]

    async def set_override(self, wanted: Override, for_ms: int, order: Order) -> int:
        """Set one for a while, or end it (0); its revision, 0 when there was none to end."""
        request = pb.SetOverrideRequest(
            kind=pb.OverrideKind.ValueType(wanted.kind),
            target=wanted.target,
            weights=[codec.encode(share) for share in wanted.weights],
            for_ms=for_ms,
            order=codec.encode(order),
        )
        answer: pb.SetOverrideResponse = await self._ask("SetOverride", request)
        return answer.revision

    async def reset_breaker(self, replica: str, order: Order) -> tuple[int, str]:
        """Forget what is held against it; the revision, and what that was."""
        request = pb.ResetBreakerRequest(replica=replica, order=codec.encode(order))
        answer: pb.ResetBreakerResponse = await self._ask("ResetBreaker", request)
        return answer.revision, answer.previous

    async def probe(self, replica: str, timeout_ms: int) -> Probed:
        """Ask it for a token, now."""
        request = pb.ProbeReplicaRequest(replica=replica, timeout_ms=timeout_ms)
        answer: pb.ProbeReplicaResponse = await self._ask("ProbeReplica", request)
        return Probed(answer.ok, answer.detail, answer.duration_ms, answer.node)

    async def audit(self, since_ms: int, actor: str) -> tuple[list[AuditEntry], AuditEntry | None]:
        """Who changed what, oldest first; and the entry that the log says is the newest."""
        request = pb.ListAuditRequest(since_ms=since_ms, actor=actor)
        found: list[pb.ListAuditResponse] = await self._ask("ListAudit", request)
        entries = [codec.decode(entry, AuditEntry) for part in found for entry in part.entries]
        newest = [part.newest for part in found if part.HasField("newest")]
        return entries, codec.decode(newest[0], AuditEntry) if newest else None

    async def _ask(self, method: str, request: Message) -> Any:
        """One answer, or the list of a stream's."""
        options = {"timeout": DEADLINES_S.get(method, DEADLINE_S), "metadata": self._plane.metadata}

        async def asked(channel: grpc.aio.Channel) -> Any:
            call = getattr(steer_pb2_grpc.SteerServiceStub(channel), method)(request, **options)
            try:
                if method == "ListAudit":
                    return [part async for part in call]
                return await call
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
                text = "this control plane is older than this ctl: upgrade it (docs/upgrade.md)"
                raise CtlError(Exit.FAILED, text) from None

        return await self._plane.ask(asked)

"""A control plane's SteerService that keeps what it was told, and refuses on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc

from trimtab import codec
from trimtab.steered import AuditEntry
from trimtab.v1 import steer_pb2 as pb
from trimtab.v1 import types_pb2
from trimtab.views import Fleet

PROBES = {"gpu1": (False, "HTTP 500: out of memory"), "gpu0": (True, "")}


@dataclass
class FakeSteer:
    """`fleet` is whose state it knows."""

    fleet: Callable[[], Fleet]
    refusal: tuple[grpc.StatusCode, str] | None = None
    intents: list[pb.SetIntentsRequest] = field(default_factory=list)
    overrides: list[pb.SetOverrideRequest] = field(default_factory=list)
    resets: list[pb.ResetBreakerRequest] = field(default_factory=list)
    entries: list[AuditEntry] = field(default_factory=list)

    def SetIntents(  # noqa: N802  the contract's name
        self, request: pb.SetIntentsRequest, context: grpc.ServicerContext
    ) -> pb.SetIntentsResponse:
        """Keep it."""
        self._check(context)
        before = {replica.route.replica: replica.intent for replica in self.fleet().replicas}
        self.intents.append(request)
        return pb.SetIntentsResponse(
            revision=412 + len(self.intents),
            previous=[types_pb2.Intent.ValueType(before[name]) for name in request.replicas],
        )

    def SetOverride(  # noqa: N802  the contract's name
        self, request: pb.SetOverrideRequest, context: grpc.ServicerContext
    ) -> pb.SetOverrideResponse:
        """Keep it."""
        self._check(context)
        self.overrides.append(request)
        known = {(int(one.kind), one.target) for one in self.fleet().overrides}
        found = request.for_ms or (int(request.kind), request.target) in known
        return pb.SetOverrideResponse(revision=412 + len(self.overrides) if found else 0)

    def ResetBreaker(  # noqa: N802  the contract's name
        self, request: pb.ResetBreakerRequest, context: grpc.ServicerContext
    ) -> pb.ResetBreakerResponse:
        """Keep it."""
        self._check(context)
        self.resets.append(request)
        return pb.ResetBreakerResponse(revision=413, previous="EJECTED, 3 ejections")

    def ProbeReplica(  # noqa: N802  the contract's name
        self, request: pb.ProbeReplicaRequest, context: grpc.ServicerContext
    ) -> pb.ProbeReplicaResponse:
        """What PROBES says."""
        self._check(context)
        ok, detail = PROBES[request.replica]
        return pb.ProbeReplicaResponse(ok=ok, detail=detail, duration_ms=212, node="h200a")

    def ListAudit(  # noqa: N802  the contract's name
        self, request: pb.ListAuditRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ListAuditResponse]:
        """Its entries."""
        self._check(context)
        newest = self.entries[-1:]
        yield pb.ListAuditResponse(newest=codec.encode(newest[0]) if newest else None)
        found = [codec.encode(one) for one in self.entries if request.actor in {"", one.actor}]
        yield pb.ListAuditResponse(entries=found)

    def _check(self, context: grpc.ServicerContext) -> None:
        if self.refusal is not None:
            context.abort(*self.refusal)

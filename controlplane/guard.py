"""Who may call what: every call passes here, and no stream outlives its caller's certificate.

Rules: a unix socket is root's and may do everything (its file's mode is the lock); everybody else
is who his certificate says, and what is not allowed by the table is refused. A stream whose
certificate is revoked or over is ended: on revocation at once, else within CHECK_PERIOD_S.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from grpc_health.v1 import health

from controlplane.core.bursts import Bursts
from controlplane.keda import externalscaler_pb2
from controlplane.revocations import Revocations
from controlplane.store.protocol import Store
from trimtab.runtime import certificates, clock
from trimtab.runtime.certificates import WORKER_MARK, Peer, Role
from trimtab.steered import Order
from trimtab.v1 import agent_pb2, edge_pb2, identity_pb2

CHECK_PERIOD_S = 1.0
UNIX = "unix:"
EVERYBODY = frozenset(Role)
# What is not here is for operators.
MAY_CALL: dict[str, frozenset[Role]] = {
    agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name: frozenset({Role.AGENT}),
    edge_pb2.DESCRIPTOR.services_by_name["EdgeService"].full_name: frozenset({Role.EDGE}),
    identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name: EVERYBODY,
    health.SERVICE_NAME: EVERYBODY,
    externalscaler_pb2.DESCRIPTOR.services_by_name["ExternalScaler"].full_name: frozenset(
        {Role.SCALER, Role.ADMIN, Role.CONTROLPLANE}
    ),
}
OPERATORS = frozenset({Role.ADMIN})
Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Any]
log = logging.getLogger("controlplane.guard")
_caller: ContextVar[Peer | None] = ContextVar("caller", default=None)


def caller() -> Peer | None:
    """Whose call this task serves; None for one without a certificate (a unix socket)."""
    return _caller.get()


def order(claimed: str, reason: str, if_revision: int | None = None) -> Order:
    """Who changes something; `claimed` counts only where nobody shows a certificate."""
    peer = caller()
    return Order(peer.name if peer else claimed or "unknown", reason, if_revision)


def must_be(name: str) -> str:
    """Why the caller can't be who he says, or a worker of his; empty when he can."""
    peer = caller()
    if peer is None or peer.name == name.partition(WORKER_MARK)[0]:
        return ""
    return f"the certificate is for {peer.name}, not for {name[:128]}"


class Guard(grpc.aio.ServerInterceptor):
    """Refuses, and ends what is no longer allowed."""

    def __init__(self, store: Store) -> None:
        self.revocations = Revocations(store, self.end_the_invalid)
        self._refusals = Bursts()
        self.on_refused: Callable[[str, str], None] = lambda _name, _problem: None
        """Told whose certificate did not let him in, or any more, and why."""
        self._streams: dict[asyncio.Task[Any], Peer] = {}
        self._ended: dict[asyncio.Task[Any], str] = {}

    async def run(self) -> None:
        """End streams whose certificates expire, for ever."""
        while True:
            await asyncio.sleep(CHECK_PERIOD_S)
            self.end_the_invalid()

    def end_the_invalid(self) -> None:
        """End every stream that could not begin now."""
        for task, peer in self._streams.items():
            if task not in self._ended and (problem := self._invalid(peer)):
                self._ended[task] = problem
                task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Put the check in front of a method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        allowed = MAY_CALL.get(method.split("/")[1], OPERATORS)

        async def single(request: Any, context: Context) -> Any:
            await self._admit(method, allowed, context)
            return await inner(request, context)

        async def stream(request: Any, context: Context) -> None:
            peer = await self._admit(method, allowed, context)
            await self._hold(peer, _writing(inner, request, context), context)

        inner: Method
        options = (handler.request_deserializer, handler.response_serializer)
        if handler.request_streaming and handler.response_streaming:
            inner = handler.stream_stream
            return grpc.stream_stream_rpc_method_handler(stream, *options)
        if handler.response_streaming:
            inner = handler.unary_stream
            return grpc.unary_stream_rpc_method_handler(stream, *options)
        if handler.request_streaming:
            inner = handler.stream_unary
            return grpc.stream_unary_rpc_method_handler(single, *options)
        inner = handler.unary_unary
        return grpc.unary_unary_rpc_method_handler(single, *options)

    async def _admit(self, method: str, allowed: frozenset[Role], context: Context) -> Peer | None:
        """Who calls; ends the call when he may not."""
        if context.peer().startswith(UNIX):
            return None
        try:
            peer = _peer(context)
        except ValueError as error:
            self._count(context.peer().rpartition(":")[0], method, str(error))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        if problem := self._invalid(peer):
            if self._count(str(peer), method, problem):
                self.on_refused(peer.name, problem)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, problem)
        if peer.role not in allowed:
            problem = f"{method} is for {' and '.join(sorted(allowed))}, not for {peer.role}"
            self._count(str(peer), method, problem)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, problem)
        _caller.set(peer)
        return peer

    async def _hold(self, peer: Peer | None, work: Awaitable[None], context: Context) -> None:
        """Let a stream run for as long as it may."""
        task = asyncio.current_task()
        if peer is None or task is None:
            return await work
        self._streams[task] = peer
        try:
            await work
        except asyncio.CancelledError:
            if not (problem := self._ended.get(task)):
                raise
            task.uncancel()
            log.info("stream ended", extra={"fields": {"peer": str(peer), "reason": problem}})
            self.on_refused(peer.name, problem)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, problem)
        finally:
            del self._streams[task]
            self._ended.pop(task, None)

    def _invalid(self, peer: Peer) -> str:
        if peer.serial in self.revocations.serials:
            return f"the certificate of {peer.name} was revoked"
        if peer.not_after_s <= clock.wall_s():
            return f"the certificate of {peer.name} has expired"
        return ""

    def _count(self, who: str, method: str, problem: str) -> bool:
        """Whether it was the first of a burst, and told."""
        first = self._refusals.add(who, clock.now_s())
        if first:
            total = self._refusals.total
            fields = {"peer": who, "method": method, "problem": problem, "refused": total}
            log.warning("call refused", extra={"fields": fields})
        return first


async def _writing(inner: Method, request: Any, context: Context) -> None:
    """A method that streams, whichever of the two ways it is written."""
    if not inspect.isasyncgenfunction(inner):
        await inner(request, context)
        return
    answers: AsyncIterable[Any] = inner(request, context)
    async for answer in answers:
        await context.write(answer)


def _peer(context: Context) -> Peer:
    """Whom the caller's certificate is for; raises ValueError."""
    shown = context.auth_context().get("x509_pem_cert", ())
    for pem in shown:
        return certificates.read_peer(bytes(pem))
    raise ValueError("no certificate")

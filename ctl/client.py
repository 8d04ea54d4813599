"""The control plane as commands see it: ask, change, watch.

Rules: every question has a deadline; gRPC's errors become CtlError here and nowhere else; a watch
outlives a restart of the control plane and says how long it was blind.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what went wrong is said by us, once

import grpc

from ctl.exits import CtlError, Exit
from ctl.options import TLS_DIR
from trimtab import codec
from trimtab.runtime import clock, rpc
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.service import ConfigError
from trimtab.runtime.targets import Targets, leader_named
from trimtab.v1 import admin_pb2, admin_pb2_grpc
from trimtab.views import Explanation, Fleet, FleetEvent, StateHeader, StateRecord

if TYPE_CHECKING:
    from trimtab.runtime.tls import Identity

S = TypeVar("S")
T = TypeVar("T")
DEADLINE_S = 10.0
SYSTEM_SOCKET = pathlib.Path("/var/lib/trimtab/control.sock")  # where services keep their state
STATE_DEADLINE_S = 120.0  # for all records of a large fleet, on a slow store
WATCH_PERIOD_MS = 1_000

EXITS = {
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION: Exit.CONFLICT,
    grpc.StatusCode.ABORTED: Exit.CONFLICT,
    grpc.StatusCode.ALREADY_EXISTS: Exit.CONFLICT,
    grpc.StatusCode.UNAUTHENTICATED: Exit.DENIED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.DENIED,
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One look at a watched fleet; gap_s is set on the first one after a loss."""

    fleet: Fleet
    gap_s: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The watch lost the control plane and is looking for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Happened:
    """Some events, and how many before them were missed."""

    events: tuple[FleetEvent, ...]
    lost: int


@dataclass(frozen=True, slots=True)
class Restored:
    """How many records a restore touches, and whose they are."""

    added: int
    changed: int
    removed: int
    fleet: str


def default_target() -> str:
    """The control plane of this machine: its socket in the user's or the machine's state."""
    base = os.environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local" / "state"
    own = pathlib.Path(base) / "trimtab" / "control.sock"
    return f"unix:{SYSTEM_SOCKET if SYSTEM_SOCKET.exists() and not own.exists() else own}"


def identity() -> Identity | None:
    """Who asks; None for one who needs no certificate. Raises CtlError."""
    directory = os.environ.get(TLS_DIR)
    if not directory:
        return None
    from trimtab.runtime import tls  # noqa: PLC0415  50 ms that a unix socket need not pay
    from trimtab.runtime.certificates import Role  # noqa: PLC0415

    try:
        return tls.find(directory, Role.ADMIN)
    except ConfigError as error:
        raise CtlError(Exit.USAGE, str(error)) from None


def run(target: str, work: Callable[[Client], Awaitable[Exit]]) -> Exit:
    """Connect, do the work, disconnect."""

    async def connected() -> Exit:
        return await work(Client(target, identity()))

    return asyncio.run(connected())


class Client:
    """The control planes, of which one leads."""

    def __init__(self, target: str, identity: Identity | None = None) -> None:
        """`target` is a list as in the configuration."""
        self._target = target
        self._identity = identity
        self._targets = Targets(target)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return self._targets.metadata

    async def fleet(self) -> Fleet:
        """The fleet now."""

        async def ask(stub: admin_pb2_grpc.AdminServiceStub) -> admin_pb2.GetFleetResponse:
            return await stub.GetFleet(
                admin_pb2.GetFleetRequest(), timeout=DEADLINE_S, metadata=self._targets.metadata
            )

        return codec.decode((await self._ask(ask)).fleet, Fleet)

    async def explain(self, replica: str) -> Explanation:
        """Why a replica gets the traffic it gets."""
        request = admin_pb2.ExplainReplicaRequest(replica=replica)

        async def ask(stub: admin_pb2_grpc.AdminServiceStub) -> admin_pb2.ExplainReplicaResponse:
            return await stub.ExplainReplica(
                request, timeout=DEADLINE_S, metadata=self._targets.metadata
            )

        return codec.decode((await self._ask(ask)).explanation, Explanation)

    async def save_state(self) -> tuple[StateHeader, list[StateRecord]]:
        """What the store keeps, as of one revision."""

        async def ask(stub: admin_pb2_grpc.AdminServiceStub) -> list[admin_pb2.SaveStateResponse]:
            call = stub.SaveState(
                admin_pb2.SaveStateRequest(),
                timeout=STATE_DEADLINE_S,
                metadata=self._targets.metadata,
            )
            return [part async for part in call]

        parts = await self._ask(ask)
        header = codec.decode(parts[0].header, StateHeader) if parts else None
        records = [codec.decode(record, StateRecord) for part in parts for record in part.records]
        if header is None or len(records) != header.records:
            raise CtlError(
                Exit.FAILED, "the control plane sent only a part of its state; try again"
            )
        return header, records

    async def restore_state(
        self, records: Sequence[StateRecord], reason: str, actor: str, *, preview: bool
    ) -> Restored:
        """Make the store keep exactly these, or say what that would change."""

        async def requests() -> AsyncGenerator[admin_pb2.RestoreStateRequest, None]:
            yield admin_pb2.RestoreStateRequest(
                expected=len(records), preview=preview, reason=reason, actor=actor
            )
            for record in records:  # one a message: each is bounded, whatever their sizes
                yield admin_pb2.RestoreStateRequest(records=[codec.encode(record)])

        async def ask(stub: admin_pb2_grpc.AdminServiceStub) -> admin_pb2.RestoreStateResponse:
            return await stub.RestoreState(
                requests(), timeout=STATE_DEADLINE_S, metadata=self._targets.metadata
            )

        done = await self._ask(ask)
        return Restored(done.added, done.changed, done.removed, done.fleet)

    async def watch(self) -> AsyncGenerator[Frame | Lost, None]:
        """The fleet now and after every change, until the caller has seen enough."""
        seen_s: float | None = None
        lost = False
        async for seen in self._again(self._fleets):
            if isinstance(seen, Lost):
                lost = True
                yield seen
                continue
            now_s = clock.now_s()
            yield Frame(seen, now_s - seen_s if lost and seen_s else None)
            seen_s, lost = now_s, False

    async def events(
        self, request: admin_pb2.WatchEventsRequest
    ) -> AsyncGenerator[Happened | Lost, None]:
        """The newest events, oldest first, and what happens then, also under the next leader."""
        if not request.follow:
            for part in await self._ask(lambda stub: self._parts(stub, request)):
                yield part
            return
        last_ms, again = 0, False
        async for seen in self._again(lambda: self._happening(request)):
            if isinstance(seen, Lost):
                again = True
                yield seen
                continue
            # another connection begins with what may have been told on the one before
            news = tuple(e for e in seen.events if not again or e.at_ms > last_ms)
            again = again and not news
            last_ms = news[-1].at_ms if news else last_ms
            yield Happened(news, seen.lost)

    async def _again(
        self, connect: Callable[[], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[T | Lost, None]:
        """What streams give, one connection after the other."""
        backoff = Backoff(random.SystemRandom())
        began = lost = False
        tries = len(self._targets)  # for the first answer
        while True:
            try:
                async with aclosing(connect()) as stream:
                    async for answer in stream:
                        yield answer
                        began, lost = True, False
                        self._targets.served()
                        backoff.reset()
                reason = "the control plane ended the stream"
                self._targets.move()
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                if self._move(error):
                    continue
                tries -= 1
                failure = self._translate(error)
                if failure.code is not Exit.UNREACHABLE or (not began and not tries):
                    raise failure from None
                if not began:
                    continue
                reason = failure.why
            if not lost:
                lost = True
                yield Lost(reason)
            await asyncio.sleep(backoff.next_s())

    async def _fleets(self) -> AsyncGenerator[Fleet, None]:
        """One connection's answers; the first one has a deadline."""
        request = admin_pb2.WatchFleetRequest(period_ms=WATCH_PERIOD_MS)
        limit_s: float | None = DEADLINE_S
        async with rpc.channel(self._targets.current, self._identity) as channel:
            stub = admin_pb2_grpc.AdminServiceStub(channel)
            call = stub.WatchFleet(request, metadata=self._targets.metadata)
            try:
                while True:
                    async with asyncio.timeout(limit_s):
                        answer = await call.read()
                    if not isinstance(answer, admin_pb2.WatchFleetResponse):
                        return
                    limit_s = None
                    yield codec.decode(answer.fleet, Fleet)
            finally:
                call.cancel()

    async def _happening(
        self, request: admin_pb2.WatchEventsRequest
    ) -> AsyncGenerator[Happened, None]:
        """One connection's events."""
        async with rpc.channel(self._targets.current, self._identity) as channel:
            stub = admin_pb2_grpc.AdminServiceStub(channel)
            call = stub.WatchEvents(request, metadata=self._targets.metadata)
            try:
                async for part in call:
                    yield _happened(part)
            finally:
                call.cancel()

    async def _parts(
        self, stub: admin_pb2_grpc.AdminServiceStub, request: admin_pb2.WatchEventsRequest
    ) -> list[Happened]:
        call = stub.WatchEvents(request, timeout=DEADLINE_S, metadata=self._targets.metadata)
        return [_happened(part) async for part in call]

    async def _ask(self, ask: Callable[[admin_pb2_grpc.AdminServiceStub], Awaitable[T]]) -> T:
        return await self.ask(lambda channel: ask(admin_pb2_grpc.AdminServiceStub(channel)))

    async def ask(self, ask: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
        """An answer of the leader, or of the first control plane that has one."""
        tries = len(self._targets)
        while True:
            try:
                async with rpc.channel(self._targets.current, self._identity) as channel:
                    return await ask(channel)
            except grpc.aio.AioRpcError as error:
                if self._move(error):
                    continue
                tries -= 1
                failure = self._translate(error)
                if failure.code is not Exit.UNREACHABLE or not tries:
                    raise failure from None

    def _move(self, error: grpc.aio.AioRpcError | TimeoutError) -> bool:
        """Choose whom to ask next; True when it was named as the leader."""
        return self._targets.move(None if isinstance(error, TimeoutError) else leader_named(error))

    def _translate(self, error: grpc.aio.AioRpcError | TimeoutError) -> CtlError:
        if isinstance(error, TimeoutError):
            return self._unreachable(f"no answer within {DEADLINE_S:.0f} s")
        code = EXITS.get(error.code(), Exit.FAILED)
        if code is Exit.UNREACHABLE:
            return self._unreachable(_last_words(error.details() or "no detail"))
        return CtlError(code, error.details() or rpc.explain(error))

    def _unreachable(self, why: str) -> CtlError:
        return CtlError(
            Exit.UNREACHABLE,
            f"cannot reach the control plane at {self._target}: {why}\n"
            "Edges keep serving with the last configuration they were given.\n"
            "Next: is it running there (trimtab up)? Elsewhere: --server or $TRIMTAB_SERVER,\n"
            "like unix:/path/control.sock or host:port.",
            why,
        )


def _happened(part: admin_pb2.WatchEventsResponse) -> Happened:
    return Happened(tuple(codec.decode(e, FleetEvent) for e in part.events), part.lost)


def _last_words(details: str) -> str:
    """The system's own word out of gRPC's chain of causes; what a server said stays whole."""
    return details.rsplit(": ", 1)[-1] if details.startswith("failed to connect") else details

"""Several real control planes in the test's event loop, on one store, each with its own link."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from controlplane import main
from controlplane.leader import LEADER_KEY
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.protocol import (
    Change,
    Compare,
    Entry,
    Listing,
    Op,
    Store,
    StoreError,
    TxnResult,
)
from tests.fakes.running_control_plane import admin, config
from tests.fakes.wait import DEADLINE_S, POLL_S
from trimtab.codec import decode
from trimtab.runtime import clock, rpc
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import admin_pb2
from trimtab.views import Fleet

T = TypeVar("T")


class Link:
    """One user's way to a shared store; `cut` makes every call fail, also those on their way."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.cut = False

    async def get(self, key: str) -> Entry | None:
        """See the protocol."""
        return self._passed(await self._open().get(key))

    async def range(self, prefix: str) -> Listing:
        """See the protocol."""
        return self._passed(await self._open().range(prefix))

    async def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op] = ()
    ) -> TxnResult:
        """See the protocol."""
        return self._passed(await self._open().txn(compares, successes, failures))

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Change]:
        """See the protocol; a cut one is silent."""
        async for change in self._open().watch(prefix, from_revision):
            if not self.cut:
                yield change

    async def grant(self, ttl_s: float) -> int:
        """See the protocol."""
        return self._passed(await self._open().grant(ttl_s))

    async def keepalive(self, lease: int) -> None:
        """See the protocol."""
        await self._open().keepalive(lease)
        self._passed(None)

    async def revoke(self, lease: int) -> None:
        """See the protocol."""
        await self._open().revoke(lease)

    async def close(self) -> None:
        """It is not ours."""

    def _open(self) -> Store:
        return self._passed(self._store)

    def _passed(self, answer: T) -> T:
        if self.cut:
            raise StoreError("the link is cut")
        return answer


@dataclass
class Member:
    """One control plane."""

    name: str
    target: str
    link: Link
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def end(self) -> None:
        """End it in order."""
        self.stop.set()
        if self.task is not None:
            await asyncio.wait([self.task])

    async def kill(self) -> None:
        """End it so that its lease has to run out."""
        self.link.cut = True
        await self.end()


class Cluster:
    """Control planes cp0, cp1, … that share a store."""

    def __init__(self, store: Store, directory: pathlib.Path, size: int) -> None:
        self.store = store
        self._directory = directory
        names = [f"cp{number}" for number in range(size)]
        self.members = [
            Member(name, f"unix:{directory}/{name}.sock", Link(store)) for name in names
        ]

    @property
    def targets(self) -> str:
        """All, as in a configuration."""
        return ",".join(member.target for member in self.members)

    async def start(self, runner: TaskRunner, member: Member) -> None:
        """Start one; returns when it listens."""
        member.stop.clear()
        settings = config(self._directory, name=member.name, listen=member.target)
        serving = main.serve_until(member.stop, settings, member.link)
        member.task = runner.once(member.name, serving)
        async with rpc.channel(member.target) as channel:
            await channel.channel_ready()

    async def fleet(self, member: Member) -> Fleet:
        """What one says."""
        async with admin(member.target) as stub:
            return decode((await stub.GetFleet(admin_pb2.GetFleetRequest())).fleet, Fleet)

    async def leader(self, other_than: Member | None = None) -> Member:
        """Whoever holds the key, as soon as somebody does."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                entry = await self.store.get(LEADER_KEY)
                for member in self.members:
                    held = entry is not None and f'"{member.name}"'.encode() in entry.value
                    if held and member is not other_than:
                        return member
                await asyncio.sleep(POLL_S)

    async def follower(self) -> Member:
        """One who does not lead."""
        leader = await self.leader()
        return next(member for member in self.members if member is not leader)


@contextlib.asynccontextmanager
async def cluster(directory: pathlib.Path, size: int = 3) -> AsyncIterator[Cluster]:
    """Started, and ended with the block."""
    store = await EmbeddedStore.open(directory / "shared.db", clock.now_s)
    made = Cluster(store, directory, size)
    try:
        async with TaskRunner() as runner:
            runner.forever("lease expiry", store.expire_leases())
            for member in made.members:
                await made.start(runner, member)
            yield made
            for member in made.members:
                await member.end()
    finally:
        await store.close()

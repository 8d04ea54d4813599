"""The store of one box: SQLite behind the protocol, its blocking work on one thread.

Rules: calls run one after the other on that thread, so the event loop never waits for a disk, and
there are never more of them than callers. Run `expire_leases` beside it for as long as it is open.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from controlplane.store.protocol import (
    Change,
    Compare,
    Entry,
    Listing,
    Op,
    StoreError,
    TxnResult,
    check_branch,
    check_key,
    check_txn,
)
from controlplane.store.sqlite import Database

T = TypeVar("T")
EXPIRY_PERIOD_S = 0.2  # how late a lease's end may be noticed


class EmbeddedStore:
    """Implements `controlplane.store.protocol.Store` on a file."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._database: Database | None = None
        self._changed = asyncio.Event()

    @classmethod
    async def open(cls, path: pathlib.Path, now_s: Callable[[], float]) -> Self:
        """Open or make the file; raises StoreError."""
        store = cls(path)

        def notice() -> None:
            store._loop.call_soon_threadsafe(store._wake_watchers)

        try:
            opening = store._loop.run_in_executor(store._thread, Database, path, now_s, notice)
            store._database = await opening
        except BaseException:
            store._thread.shutdown(wait=False)
            raise
        return store

    async def get(self, key: str) -> Entry | None:
        """See the protocol."""
        check_key(key)
        return await self._call(lambda database: database.get(key))

    async def range(self, prefix: str) -> Listing:
        """See the protocol."""
        return await self._call(lambda database: database.range(prefix))

    async def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op] = ()
    ) -> TxnResult:
        """See the protocol."""
        check_txn(compares, (*successes, *failures))
        check_branch(successes)
        check_branch(failures)
        return await self._call(lambda database: database.txn(compares, successes, failures))

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Change]:
        """See the protocol."""
        revision = from_revision
        while True:
            changed = self._changed  # taken before reading, so that no change falls in between
            changes, following = await self._changes(prefix, revision)
            for change in changes:
                yield change
            if following == revision:
                await changed.wait()
            revision = following

    async def grant(self, ttl_s: float) -> int:
        """See the protocol."""
        return await self._call(lambda database: database.grant(ttl_s))

    async def keepalive(self, lease: int) -> None:
        """See the protocol."""
        await self._call(lambda database: database.keepalive(lease))

    async def revoke(self, lease: int) -> None:
        """See the protocol."""
        await self._call(lambda database: database.revoke(lease))

    async def compact(self, revision: int) -> None:
        """Forget the history up to and with a revision; it also happens by itself."""
        await self._call(lambda database: database.compact(revision))

    async def expire_leases(self) -> None:
        """End leases on time, for ever; every other call ends those that are over as well."""
        while True:
            await asyncio.sleep(EXPIRY_PERIOD_S)
            await self._call(lambda database: database.expire())

    async def close(self) -> None:
        """See the protocol."""
        database, self._database = self._database, None
        if database is None:
            return
        await self._loop.run_in_executor(self._thread, database.close)
        self._thread.shutdown(wait=False)
        self._wake_watchers()

    async def _changes(self, prefix: str, revision: int) -> tuple[list[Change], int]:
        return await self._call(lambda database: database.changes(prefix, revision))

    async def _call(self, work: Callable[[Database], T]) -> T:
        database = self._database
        if database is None:
            raise StoreError(f"the store {self._path} is closed")
        return await self._loop.run_in_executor(self._thread, work, database)

    def _wake_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

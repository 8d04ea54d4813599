"""A store in memory that fails when told to, by trimtab.runtime.clock; without watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from controlplane.store.protocol import (
    Absent,
    Change,
    Compare,
    Entry,
    LeaseLostError,
    Listing,
    Op,
    Put,
    RevisionIs,
    StoreError,
    TxnResult,
    ValueIs,
)
from trimtab.runtime import clock


class FakeStore:
    """Implements `Store` but for watches; `error` makes every call fail."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.error = ""
        self.answers = asyncio.Event()
        """Clear it and what is written is not answered, as on a disk that hangs."""
        self.answers.set()
        self.txns: list[Sequence[Op]] = []
        self._granted = 0
        self._leases: dict[int, tuple[float, float]] = {}  # its time, its end

    async def get(self, key: str) -> Entry | None:
        """See the protocol."""
        self._check()
        return self.entries.get(key)

    async def range(self, prefix: str) -> Listing:
        """See the protocol."""
        self._check()
        found = [self.entries[key] for key in sorted(self.entries) if key.startswith(prefix)]
        return Listing(tuple(found), self.revision)

    async def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op] = ()
    ) -> TxnResult:
        """See the protocol."""
        self.txns.append(successes)
        self._check()
        for op in successes:
            if isinstance(op, Put) and op.lease:
                self._lease(op.lease)
        succeeded = all(self._holds(compare) for compare in compares)
        self.revision += 1
        for op in successes if succeeded else failures:
            if isinstance(op, Put):
                self.entries[op.key] = Entry(op.key, op.value, self.revision, op.lease)
            else:
                self.entries.pop(op.key, None)
        await self.answers.wait()
        return TxnResult(succeeded, self.revision)

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Change]:
        """Not here."""
        raise NotImplementedError

    async def grant(self, ttl_s: float) -> int:
        """See the protocol."""
        self._check()
        self._granted += 1
        self._leases[self._granted] = ttl_s, clock.now_s() + ttl_s
        return self._granted

    async def keepalive(self, lease: int) -> None:
        """See the protocol."""
        self._check()
        ttl_s, _ = self._lease(lease)
        self._leases[lease] = ttl_s, clock.now_s() + ttl_s

    async def revoke(self, lease: int) -> None:
        """See the protocol."""
        self._check()
        self._lease(lease)
        self._end(lease)

    async def close(self) -> None:
        """See the protocol."""

    def _holds(self, compare: Compare) -> bool:
        entry = self.entries.get(compare.key)
        match compare:
            case Absent():
                return entry is None
            case RevisionIs():
                return entry is not None and entry.mod_revision == compare.mod_revision
            case ValueIs():
                return entry is not None and entry.value == compare.value

    def _check(self) -> None:
        if self.error:
            raise StoreError(self.error)
        for lease in [one for one, (_, end_s) in self._leases.items() if end_s <= clock.now_s()]:
            self._end(lease)

    def _lease(self, lease: int) -> tuple[float, float]:
        if lease not in self._leases:
            raise LeaseLostError(f"lease {lease} is over")
        return self._leases[lease]

    def _end(self, lease: int) -> None:
        del self._leases[lease]
        self.revision += 1
        self.entries = {key: one for key, one in self.entries.items() if one.lease != lease}

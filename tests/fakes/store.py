"""A store in memory that fails when told to; only what the control plane's shell uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from controlplane.store.protocol import (
    Absent,
    Change,
    Compare,
    Entry,
    Listing,
    Op,
    Put,
    RevisionIs,
    StoreError,
    TxnResult,
    ValueIs,
)


class FakeStore:
    """Implements `Store` but for watches and leases; `error` makes every call fail."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.error = ""
        self.txns: list[Sequence[Op]] = []

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
        succeeded = all(self._holds(compare) for compare in compares)
        self.revision += 1
        for op in successes if succeeded else failures:
            if isinstance(op, Put):
                self.entries[op.key] = Entry(op.key, op.value, self.revision, op.lease)
            else:
                self.entries.pop(op.key, None)
        return TxnResult(succeeded, self.revision)

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Change]:
        """Not here."""
        raise NotImplementedError

    async def grant(self, ttl_s: float) -> int:
        """Not here."""
        raise NotImplementedError

    async def keepalive(self, lease: int) -> None:
        """Not here."""
        raise NotImplementedError

    async def revoke(self, lease: int) -> None:
        """Not here."""
        raise NotImplementedError

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

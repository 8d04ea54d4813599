"""What the control plane asks of its store: etcd's model, cut to what we use.

Rules: keys are non-empty text, ordered by their UTF-8 bytes; values are bytes. One revision counts
all changes of the whole store and never falls; a transaction is one revision, whole or not at all,
and one that changes nothing makes none. Only `get`, `range` and `watch` may be repeated blindly:
after a StoreError from `txn` the caller does not know whether it happened.
A list and then a watch from `listing.revision + 1` miss nothing and repeat nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

KEY_LIMIT_BYTES = 1024
VALUE_LIMIT_BYTES = 1024 * 1024  # etcd refuses a request above 1.5 MiB
TXN_LIMIT_OPS = 128  # etcd's --max-txn-ops


class StoreError(Exception):
    """The store can't answer now; says which store and why."""


class CompactedError(StoreError):
    """The history from the revision asked for is gone: list again, then watch from there."""


class LeaseLostError(StoreError):
    """The lease has expired, was revoked, or never was."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as it is; `lease` 0 means that it stays."""

    key: str
    value: bytes
    mod_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries under a prefix, by key, all as of one revision."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class RevisionIs:
    """True when the key exists and was last changed by exactly this revision."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class ValueIs:
    """True when the key exists and holds exactly this."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """True when there is no such key."""

    key: str


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key; with a lease it goes when the lease goes."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; one that is not there is no error."""

    key: str


Compare = RevisionIs | ValueIs | Absent
Op = Put | Delete


@dataclass(frozen=True, slots=True)
class TxnResult:
    """Which branch ran, and the store's revision after it."""

    succeeded: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Event:
    """One key that changed; `value` None means that it went."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Change:
    """Everything that one revision changed under a prefix."""

    revision: int
    events: tuple[Event, ...]


class Store(Protocol):
    """Keys, revisions, watches and leases; one object for one process."""

    async def get(self, key: str) -> Entry | None:
        """The entry, or None."""
        ...

    async def range(self, prefix: str) -> Listing:
        """Every entry whose key starts with `prefix`; an empty prefix is the whole store."""
        ...

    async def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op] = ()
    ) -> TxnResult:
        """Apply `successes` if every compare holds, else `failures`."""
        ...

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Change]:
        """Every change from a revision on, in order, for ever; raises CompactedError.

        A reader that is slow holds nothing up: it reads on from the history.
        """
        ...

    async def grant(self, ttl_s: float) -> int:
        """A new lease, that lives at least `ttl_s` after its last keepalive."""
        ...

    async def keepalive(self, lease: int) -> None:
        """Start the lease's time anew; raises LeaseLostError."""
        ...

    async def revoke(self, lease: int) -> None:
        """End a lease and its keys now; raises LeaseLostError."""
        ...

    async def close(self) -> None:
        """Let go; what was committed stays."""
        ...


def check_txn(compares: Sequence[Compare], ops: Sequence[Op]) -> None:
    """Raise ValueError on what no adapter takes; both branches together are `ops`."""
    if len(compares) > TXN_LIMIT_OPS or len(ops) > TXN_LIMIT_OPS:
        raise ValueError(f"a transaction holds at most {TXN_LIMIT_OPS} operations")
    for part in (*compares, *ops):
        check_key(part.key)
        if isinstance(part, Put) and len(part.value) > VALUE_LIMIT_BYTES:
            raise ValueError(f"{part.key}: a value holds at most {VALUE_LIMIT_BYTES} bytes")


def check_branch(ops: Sequence[Op]) -> None:
    """Raise ValueError when one branch touches a key twice: etcd refuses that."""
    if len({op.key for op in ops}) != len(ops):
        raise ValueError("a transaction may change a key only once")


def check_key(key: str) -> None:
    """Raise ValueError on a key that no adapter takes."""
    if not 0 < len(key.encode()) <= KEY_LIMIT_BYTES:
        raise ValueError(f"a key has 1 to {KEY_LIMIT_BYTES} bytes")


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after every key with this prefix; None when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None

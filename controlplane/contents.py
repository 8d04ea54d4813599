"""The store's contents as a whole: read, compared, written, for snapshots and migrations.

Rules: what has a lease belongs to a running process, and what happened is no state: both are
neither read nor touched; writes come in transactions that every store takes, so one that breaks off
leaves a part done: it can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.core.records import EVENTS, ROOT
from controlplane.leader import Tenure
from controlplane.store.protocol import (
    TXN_LIMIT_OPS,
    VALUE_LIMIT_BYTES,
    Compare,
    Delete,
    Op,
    Put,
    Store,
    StoreError,
)

Records = Mapping[str, bytes]
Changes = Mapping[str, bytes | None]  # None removes the key


@dataclass(frozen=True, slots=True)
class Restored:
    """How many records a restore touches."""

    added: int
    changed: int
    removed: int


async def read(store: Store) -> tuple[dict[str, bytes], int]:
    """Every record, by key, and the one revision that all are of. Raises StoreError."""
    listing = await store.range(ROOT)
    kept = (e for e in listing.entries if not (e.lease or e.key.startswith(EVENTS)))
    return {e.key: e.value for e in kept}, listing.revision


def compare(have: Records, want: Records) -> dict[str, bytes | None]:
    """What makes one into the other; removals last, so that one broken off has lost nothing."""
    new: dict[str, bytes | None] = {k: v for k, v in want.items() if have.get(k) != v}
    return new | {key: None for key in have if key not in want}


def count(have: Records, changes: Changes) -> Restored:
    """How much the changes are."""
    removed = sum(value is None for value in changes.values())
    added = len(changes.keys() - have.keys())
    return Restored(added, len(changes) - added - removed, removed)


async def write(
    store: Store, tenure: Tenure, changes: Changes, compares: Sequence[Compare] = ()
) -> None:
    """Make the changes, in order, while we lead and the compares hold; raises StoreError."""
    for batch in batches(changes.items()):
        ops = [op(key, value) for key, value in batch]
        if not (await tenure.write(store, ops, compares)).succeeded:
            raise StoreError("another control plane changed the state meanwhile; try again")


def batches(items: Iterable[tuple[str, bytes | None]]) -> Iterator[list[tuple[str, bytes | None]]]:
    """Parts that fit into one transaction or message: few enough, and small unless one is large."""
    batch: list[tuple[str, bytes | None]] = []
    size_bytes = 0
    for key, value in items:
        item_bytes = len(key.encode()) + len(value or b"")
        if batch and (len(batch) == TXN_LIMIT_OPS or size_bytes + item_bytes > VALUE_LIMIT_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append((key, value))
        size_bytes += item_bytes
    if batch:
        yield batch


def op(key: str, value: bytes | None) -> Op:
    """What sets a key, or removes it."""
    return Delete(key) if value is None else Put(key, value)

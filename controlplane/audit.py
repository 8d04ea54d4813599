"""Changes and their record in one transaction, whoever makes them, leader or not.

Rules: no change without its entry and no entry without its change; of two who write at once one
tries again, TRIES times. Reading is one look at the store, of one revision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from controlplane.core import audit
from controlplane.core.audit import NEWEST_KEY, Deed
from controlplane.core.records import ROOT
from controlplane.store.protocol import (
    Absent,
    Compare,
    Delete,
    Entry,
    Op,
    Put,
    RevisionIs,
    Store,
    StoreError,
    TxnResult,
)
from trimtab.runtime import clock
from trimtab.steered import AuditEntry

TRIES = 20
Write = Callable[[Sequence[Compare], Sequence[Op]], Awaitable[TxnResult]]


async def commit(
    store: Store,
    deed: Deed,
    ops: Sequence[Op],
    compares: Sequence[Compare] = (),
    write: Write | None = None,
) -> TxnResult:
    """Make a change and its entry; not succeeded when the compares don't hold. StoreError.

    `write` is the store's own `txn` unless given: a leader's is fenced.
    """
    for _ in range(TRIES):
        kept = await store.get(NEWEST_KEY)
        newest = await _newest(store, kept)
        revision = kept.mod_revision if kept else 0
        entry = audit.follow(newest, revision, deed, round(clock.wall_s() * 1000))
        value = audit.pack_entry(entry)
        more: list[Op] = [Put(NEWEST_KEY, value), Put(audit.key(entry.number), value)]
        if old := audit.dropped(entry.number):
            more.append(Delete(old))
        alone = RevisionIs(NEWEST_KEY, revision) if kept else Absent(NEWEST_KEY)
        result = await (write or store.txn)([alone, *compares], [*ops, *more])
        if result.succeeded:
            return result
        now = await store.get(NEWEST_KEY)
        if (now.mod_revision if now else 0) == revision:
            return result
    raise StoreError(f"others change things all the time ({TRIES} tries)")


async def read(store: Store) -> tuple[list[AuditEntry], AuditEntry | None]:
    """All that is kept, oldest first, with their revisions; and what was written last."""
    found = {one.key: one for one in (await store.range(ROOT + "audit")).entries}
    kept = found.pop(NEWEST_KEY, None)
    readable = [(audit.unpack_entry(one.value), one.mod_revision) for one in found.values()]
    entries = [replace(one, revision=revision) for one, revision in readable if one is not None]
    later = [one.previous_revision for one in entries[1:]]
    known = [replace(a, revision=b or a.revision) for a, b in zip(entries, later, strict=False)]
    return [*known, *entries[-1:]], audit.unpack_entry(kept.value) if kept else None


async def _newest(store: Store, kept: Entry | None) -> AuditEntry | None:
    """What the next entry follows; when that was spoiled, the last that can be read."""
    if kept is None:
        return None
    return audit.unpack_entry(kept.value) or max(
        (await read(store))[0], key=lambda entry: entry.number, default=None
    )

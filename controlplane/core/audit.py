"""The record of what people changed: entries in a chain, as the store keeps them.

Rules: an entry is written in the transaction of the change that it is about, and never changed.
AUDIT_MAX are kept. Each holds the hash of the one before, so that what was changed or cut out
later shows, and the store's revision of the one before, which a restore would forget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from controlplane.core.bounds import clip
from controlplane.core.records import ROOT, unpack
from trimtab.steered import AUDIT_MAX, AuditEntry, Order, digest

ENTRIES = ROOT + "audit/"
NEWEST_KEY = ROOT + "audit-newest"


@dataclass(frozen=True, slots=True)
class Deed:
    """A change, in words for people."""

    order: Order
    action: str
    target: str = ""
    before: str = ""
    after: str = ""


def follow(newest: AuditEntry | None, revision: int, deed: Deed, at_ms: int) -> AuditEntry:
    """The entry after the newest, which is of this revision."""
    entry = AuditEntry(
        number=newest.number + 1 if newest else 1,
        at_ms=at_ms,
        actor=clip(deed.order.actor),
        action=clip(deed.action),
        target=clip(deed.target),
        before=clip(deed.before),
        after=clip(deed.after),
        reason=clip(deed.order.reason),
        previous_revision=revision,
        previous=newest.hash if newest else "",
    )
    return replace(entry, hash=digest(entry))


def key(number: int) -> str:
    """Where an entry is kept; in the order of the numbers."""
    return f"{ENTRIES}{number:012d}"


def dropped(number: int) -> str | None:
    """What goes when this one comes."""
    return key(number - AUDIT_MAX) if number > AUDIT_MAX else None


def pack_entry(entry: AuditEntry) -> bytes:
    """An entry's bytes."""
    return msgspec.json.encode(entry)


def unpack_entry(value: bytes) -> AuditEntry | None:
    """The entry in these bytes; None if it can't be read."""
    return unpack(value, AuditEntry)


def carry_over(have: Mapping[str, bytes], want: Mapping[str, bytes]) -> dict[str, bytes]:
    """What a restore keeps: as wanted, but a record of changes is never made shorter by it."""
    kept = have if _length(have) >= _length(want) else want
    rest = {k: value for k, value in want.items() if not _is_ours(k)}
    return rest | {k: value for k, value in kept.items() if _is_ours(k)}


def _is_ours(name: str) -> bool:
    return name == NEWEST_KEY or name.startswith(ENTRIES)


def _length(records: Mapping[str, bytes]) -> int:
    newest = unpack_entry(records.get(NEWEST_KEY, b""))
    return newest.number if newest else 0

"""What operators do by hand, as people and the store see it: overrides, and the record of it all.

Rules: as in `trimtab.views` (proto/trimtab/v1/steer.proto has meanings and units). An override
always ends: by an operator's word, or by its time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from enum import IntEnum

AUDIT_MAX = 4_096
"""Entries that are kept, of which the oldest go first: about 2 MiB."""


class OverrideKind(IntEnum):
    """What is put in the place of automatic steering."""

    UNSPECIFIED = 0
    WEIGHTS = 1
    HOLD_OPEN = 2
    HOLD_CLOSED = 3
    PAUSE = 4
    EDGE_DRAIN = 5


@dataclass(frozen=True, slots=True)
class Order:
    """Who asks for a change, why, and of what state."""

    actor: str
    reason: str = ""
    if_revision: int | None = None
    outage_ok: bool = False
    """Although a pool loses the last replica that is open."""


@dataclass(frozen=True, slots=True)
class Share:
    """One replica's weight beside the others' of its pool."""

    replica: str
    weight: float


@dataclass(frozen=True, slots=True)
class Override:
    """What an operator decided, until when."""

    kind: OverrideKind
    target: str = ""
    weights: tuple[Share, ...] = ()
    actor: str = ""
    reason: str = ""
    at_ms: int = 0
    until_ms: int = 0
    left_ms: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change that somebody made."""

    number: int
    at_ms: int
    actor: str
    action: str
    target: str = ""
    before: str = ""
    after: str = ""
    reason: str = ""
    previous_revision: int = 0
    previous: str = ""
    hash: str = ""
    revision: int = 0


def digest(entry: AuditEntry) -> str:
    """SHA-256 of all that an entry says, and by `previous` of all before it."""
    said = astuple(replace(entry, hash="", revision=0))
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def fault(entries: Sequence[AuditEntry], newest: AuditEntry) -> str:
    """What was changed, cut out or cut off; empty when these are all that is kept, as written.

    `newest` has the number and the hash that the log says its last entry has.
    """
    first = max(1, newest.number - AUDIT_MAX + 1)
    numbers = [entry.number for entry in entries]
    if numbers != list(range(first, newest.number + 1)):
        missing = sorted(set(range(first, newest.number + 1)) - set(numbers))
        return f"entry {missing[0]} is missing" if missing else "entries are there twice"
    before = ""
    for entry in entries:
        if digest(entry) != entry.hash:
            return f"entry {entry.number} was changed after it was written"
        if before and entry.previous != before:
            return f"entry {entry.number} does not follow the one before it"
        before = entry.hash
    return "" if before == newest.hash else f"entry {newest.number} is not the one written last"

"""What the store keeps, and under which keys: JSON that outlives versions.

Rules: records hold what changes rarely; unknown fields of a newer version are ignored; a record
that can't be read is as good as none. Reports, credits and weights are never stored.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from trimtab.model import EngineFacts, Intent, Serving

ROOT = "trimtab/"
TERM_KEY = ROOT + "term"
REPLICAS = ROOT + "replicas/"
INTENTS = ROOT + "intents/"
T = TypeVar("T")


class ReplicaRecord(msgspec.Struct, frozen=True):
    """A replica as last known, so that a restart need not wait for its agent."""

    node: str
    facts: EngineFacts
    health: Serving
    """The last decision made from its agent's word."""


class Wish(msgspec.Struct, frozen=True):
    """An operator's wish for a replica."""

    intent: Intent = Intent.ACTIVE
    reason: str = ""
    actor: str = ""
    at_s: float = 0.0
    """When, in seconds since 1970."""


def pack(record: ReplicaRecord | Wish) -> bytes:
    """A record's bytes; the same record gives the same bytes."""
    return msgspec.json.encode(record)


def unpack(value: bytes, kind: type[T]) -> T | None:
    """The record in these bytes; None if it can't be read."""
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None


def pack_term(term: int) -> bytes:
    """A term's bytes."""
    return b"%d" % term


def unpack_term(value: bytes) -> int:
    """The term in these bytes; 0 if it can't be read."""
    return int(value) if value.isdigit() else 0

"""What the store keeps, and under which keys: JSON that outlives versions.

Rules: records hold what changes rarely; unknown fields of a newer version are ignored; a record
that can't be read is as good as none. Reports, credits and weights are never stored.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from trimtab.model import BreakerState, EngineFacts, Intent, Serving
from trimtab.policy.breaker import (
    BACKOFF_JITTER,
    BACKOFF_MAX_S,
    FORGIVEN_S,
    RAMP_STEP_S,
    Breaker,
    Cause,
)
from trimtab.steered import Override
from trimtab.views import LiveConfig

ROOT = "trimtab/"
TERM_KEY = ROOT + "term"
SCHEMA_KEY = ROOT + "schema"
REPLICAS = ROOT + "replicas/"
INTENTS = ROOT + "intents/"
CONFIGS = ROOT + "config/"
EVENTS = ROOT + "events/"
WAIT_MAX_S = BACKOFF_MAX_S * (1.0 + BACKOFF_JITTER)
T = TypeVar("T")


class BreakerRecord(msgspec.Struct, frozen=True):
    """A breaker that is not just healthy, so that a new leader keeps its ejections."""

    state: BreakerState
    cause: str = ""
    """Name of the cause of its last move."""
    ejections: int = 0
    until_wall_s: float = 0.0
    """When it may be probed, in seconds since 1970."""
    cap_slots: float = 0.0
    epoch: int = 0
    cold: bool = False


class ReplicaRecord(msgspec.Struct, frozen=True):
    """A replica as last known, so that a restart need not wait for its agent."""

    node: str
    facts: EngineFacts
    health: Serving
    """The last decision made from its agent's word."""
    breaker: BreakerRecord | None = None
    """None: it is healthy and nothing is held against it."""
    capacity_work_per_s: float = 0.0
    """What it was last known to deliver while full; 0 is unknown."""


class Wish(msgspec.Struct, frozen=True):
    """An operator's wish for a replica."""

    intent: Intent = Intent.ACTIVE
    reason: str = ""
    actor: str = ""
    at_s: float = 0.0
    """When, in seconds since 1970."""


class ConfigRecord(msgspec.Struct, frozen=True):
    """A configuration that was applied."""

    revision: int = 0
    config: LiveConfig | None = None
    """None: the file of the control plane that leads."""
    at_s: float = 0.0
    """When, in seconds since 1970."""
    actor: str = ""
    reason: str = ""

    @property
    def key(self) -> str:
        """Where it is kept; the keys are in the revisions' order."""
        return f"{CONFIGS}{self.revision:010d}"


def remember(breaker: Breaker, wall_offset_s: float) -> BreakerRecord | None:
    """What to store of a breaker; `wall_offset_s` turns the leader's clock into wall time."""
    in_use = breaker.state in {BreakerState.HEALTHY, BreakerState.DEGRADED}
    if in_use and not breaker.ejections:
        return None
    ejected = breaker.state is BreakerState.EJECTED
    return BreakerRecord(
        state=breaker.state,
        cause=breaker.cause.name if breaker.cause else "",
        ejections=breaker.ejections,
        until_wall_s=round(breaker.until_s + wall_offset_s, 1) if ejected else 0.0,
        cap_slots=breaker.cap_slots if breaker.state is BreakerState.RAMPING else 0.0,
        epoch=breaker.epoch,
        cold=breaker.cold,
    )


def recall(record: BreakerRecord | None, health: Serving, now_s: float, offset_s: float) -> Breaker:
    """The breaker that was stored. Clocks step: no wait becomes longer than the longest."""
    if record is None:
        known = health is Serving.OPEN
        state = BreakerState.HEALTHY if known else BreakerState.JOINING
        return Breaker(state, since_s=now_s, counts_from_s=now_s)
    waits_s = {
        BreakerState.RAMPING: RAMP_STEP_S,
        BreakerState.HEALTHY: FORGIVEN_S * record.ejections,
    }
    return Breaker(
        state=record.state,
        cause=Cause.__members__.get(record.cause),
        since_s=now_s,
        ejections=record.ejections,
        until_s=min(record.until_wall_s - offset_s, now_s + WAIT_MAX_S),
        cap_slots=record.cap_slots,
        epoch=record.epoch,
        counts_from_s=now_s,
        due_s=now_s + waits_s.get(record.state, 0.0),
        cold=record.cold,
    )


def pack(record: ReplicaRecord | Wish | Override | ConfigRecord) -> bytes:
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

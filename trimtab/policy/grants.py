"""Credits: how many requests each edge may have on each replica, so that many queues are one.

A lease is a number of slots of one replica at one edge. An edge fills its leases by itself, and
again at once when a request of its own ends; this module moves leases to where the oldest wait.

Rules, for each replica at each tick:
- What an edge neither uses nor has requests for goes back.
- Of the rest, what is expected to end by the next tick is collected, each edge's in proportion, at
  most PREPAID_MAX slots: they are given away before they are free, since a slot that waits for a
  round trip is idle. The engine's queue pays for the guess.
- Room is the limit, and what was collected, less all that is held or used, whichever is more. It is
  never made positive by force: an edge above its lease, or a limit that fell, means no room until
  requests have ended. (Clamping it before the subtraction is a ratchet: each tick gives a little
  too much, the engine's queue grows without end and nobody is served in time.)
- With more waiting than room, the oldest get it (`ranking`), whichever edge they wait at; else all
  that wait get theirs and the rest is spread, so that a quiet edge can take a burst by itself.
- Leases are fractions that are remembered, and edges are told whole numbers of the same sum: the
  largest remainders get the rest. So what edges may have adds up to the limit at most, always, and
  what they have exceeds it only by what was prepaid, or until a limit that fell is worked off.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.model import TenantUse
from trimtab.policy import ranking

PREPAID_MAX = 4.0

Leases = Mapping[str, Mapping[str, float]]
"""By replica, then by edge."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One edge: its attempts by replica, and who waits at it."""

    inflight: Mapping[str, int]
    waiting: tuple[TenantUse, ...] = ()

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return sum(use.queued for use in self.waiting)


@dataclass(frozen=True, slots=True)
class Room:
    """One replica: its limit, and how many requests are expected to end by the next tick."""

    limit: float
    ending: float = 0.0


def grant(
    leases: Leases,
    rooms: Mapping[str, Room],
    edges: Mapping[str, Demand],
    counters: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    """The next leases of one pool's open replicas. O(replicas x edges + waiting log waiting)."""
    wanted = {edge: _wanted(edge, demand, leases, rooms) for edge, demand in edges.items()}
    held: dict[str, dict[str, float]] = {}
    free: dict[str, float] = {}
    for name, room in rooms.items():
        running = {edge: demand.inflight.get(name, 0) for edge, demand in edges.items()}
        before = leases.get(name, {})  # of an edge that is new to us: what it has
        slots = {edge: before.get(edge, float(running[edge])) for edge in edges}
        kept = {edge: _kept(slots[edge], running[edge], wanted[edge]) for edge in edges}
        held[name], free[name] = _collect(kept, running, room)
    total = sum(free.values())
    if total <= 0.0:
        return held
    parts = _parts(edges, counters, total)
    return {
        name: {edge: slots + parts[edge] * free[name] / total for edge, slots in of.items()}
        for name, of in held.items()
    }


def whole(leases: Mapping[str, float], replica: str) -> dict[str, int]:
    """One replica's leases as whole numbers of the same sum, rounded down."""
    # equal remainders are common: each replica begins with another edge, so that none has them all
    names = sorted(leases)
    start = zlib.crc32(replica.encode()) % max(1, len(names))
    names = names[start:] + names[:start]
    floors = {edge: math.floor(leases[edge]) for edge in names}
    rest = math.floor(sum(leases.values()) + 1e-6) - sum(floors.values())
    lucky = set(sorted(names, key=lambda edge: floors[edge] - leases[edge])[: max(0, rest)])
    return {edge: floors[edge] + (edge in lucky) for edge in leases}


def _wanted(edge: str, demand: Demand, leases: Leases, rooms: Mapping[str, Room]) -> float:
    """What share of its unused leases an edge has requests for."""
    unused = sum(
        max(0.0, leases.get(name, {}).get(edge, 0.0) - demand.inflight.get(name, 0))
        for name in rooms
    )
    return min(1.0, demand.queued / unused) if unused > 0.0 else 0.0


def _kept(slots: float, running: int, wanted: float) -> float:
    used = min(slots, float(running))
    return used + wanted * (slots - used)


def _collect(
    kept: Mapping[str, float], running: Mapping[str, int], room: Room
) -> tuple[dict[str, float], float]:
    """What stays with each edge of one replica, and the room that there is to give."""
    held = dict(kept)
    total = sum(held.values())
    prepaid = min(room.ending, PREPAID_MAX, total)
    allowed = room.limit + prepaid
    used = sum(max(slots, running[edge]) for edge, slots in held.items())
    if used > allowed:  # what is not in use yet is taken back first
        unused = sum(max(0.0, slots - running[edge]) for edge, slots in held.items())
        left = max(0.0, 1.0 - (used - allowed) / unused) if unused > 0.0 else 0.0
        held = {edge: _kept(slots, running[edge], left) for edge, slots in held.items()}
        total = sum(held.values())
    stays = max(0.0, min(total - prepaid, room.limit))
    ratio = stays / total if total > 0.0 else 0.0
    return {edge: ratio * slots for edge, slots in held.items()}, max(0.0, allowed - used)


def _parts(
    edges: Mapping[str, Demand], counters: Mapping[str, float], room: float
) -> dict[str, float]:
    """How much of the room each edge gets."""
    queued = {edge: float(demand.queued) for edge, demand in edges.items()}
    slack = room - sum(queued.values())
    if slack >= 0.0:
        return {edge: number + slack / len(edges) for edge, number in queued.items()}
    found = ranking.first({e: d.waiting for e, d in edges.items()}, counters, room)
    return {edge: found.get(edge, 0.0) for edge in edges}

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
import operator
import zlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

from trimtab.model import TenantUse
from trimtab.policy import ranking

PREPAID_MAX = 4.0
T = TypeVar("T")

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
    return finish(granting(leases, rooms, edges, counters))


def finish(steps: Generator[None, None, T]) -> T:
    """Take all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value)


def granting(
    leases: Leases,
    rooms: Mapping[str, Room],
    edges: Mapping[str, Demand],
    counters: Mapping[str, float],
) -> Generator[None, None, dict[str, dict[str, float]]]:
    """`grant` in steps of one replica, so that a large fleet holds nobody up.

    A replica's numbers are rows, one number an edge: that is where the time goes.
    """
    names = list(edges)
    running_at = [demand.inflight.get for demand in edges.values()]
    wanted = [_wanted(edge, demand, leases, rooms) for edge, demand in edges.items()]
    held: dict[str, list[float]] = {}
    free: dict[str, float] = {}
    for name, room in rooms.items():
        running = [at(name, 0) for at in running_at]
        slots = _row(leases.get(name, {}), names, running)
        held[name], free[name] = _collect(_kept(slots, running, wanted), running, room)
        yield
    total = sum(free.values())
    shares = list(_parts(edges, counters, total).values()) if total > 0.0 else []
    given: dict[str, dict[str, float]] = {}
    for name, row in held.items():
        room_free = free[name]
        if shares:
            parts = [part * room_free / total for part in shares]
            row = list(map(operator.add, row, parts))  # noqa: PLW2901
        given[name] = dict(zip(names, row, strict=True))
        yield
    return given


def whole(leases: Mapping[str, float], replica: str) -> dict[str, int]:
    """One replica's leases as whole numbers of the same sum, rounded down."""
    # equal remainders are common: each replica begins with another edge, so that none has them all
    names = sorted(leases)
    start = zlib.crc32(replica.encode()) % max(1, len(names))
    floors = {edge: int(slots) for edge, slots in leases.items()}
    rest = math.floor(sum(leases.values()) + 1e-6) - sum(floors.values())
    if rest > 0:
        lost = {edge: floors[edge] - slots for edge, slots in leases.items()}
        for edge in sorted(names[start:] + names[:start], key=lost.__getitem__)[:rest]:
            floors[edge] += 1
    return floors


def _row(before: Mapping[str, float], names: list[str], running: list[int]) -> list[float]:
    """What each edge has; of an edge that is new to us: what it uses."""
    if len(before) == len(names) and list(before) == names:
        return list(before.values())
    return [before.get(edge, float(used)) for edge, used in zip(names, running, strict=True)]


def _wanted(edge: str, demand: Demand, leases: Leases, rooms: Mapping[str, Room]) -> float:
    """What share of its unused leases an edge has requests for."""
    if not demand.queued:
        return 0.0
    unused = sum(
        max(0.0, leases.get(name, {}).get(edge, 0.0) - demand.inflight.get(name, 0))
        for name in rooms
    )
    return min(1.0, demand.queued / unused) if unused > 0.0 else 0.0


def _kept(slots: list[float], running: list[int], wanted: list[float]) -> list[float]:
    """What stays with each edge: what it uses, and of the rest what it has requests for."""
    used = [h if h <= at else float(at) for h, at in zip(slots, running, strict=True)]
    if not any(wanted):
        return used
    return [u + w * (held - u) for u, w, held in zip(used, wanted, slots, strict=True)]


def _collect(kept: list[float], running: list[int], room: Room) -> tuple[list[float], float]:
    """What stays with each edge of one replica, and the room that there is to give."""
    held, total = kept, sum(kept)
    prepaid = min(room.ending, PREPAID_MAX, total)
    allowed = room.limit + prepaid
    used = sum([h if h >= at else at for h, at in zip(held, running, strict=True)])  # noqa: FURB136 - faster
    if used > allowed:  # what is not in use yet is taken back first
        unused = sum([max(0.0, slots - at) for slots, at in zip(held, running, strict=True)])
        left = max(0.0, 1.0 - (used - allowed) / unused) if unused > 0.0 else 0.0
        held = _kept(held, running, [left] * len(held))
        total = sum(held)
    stays = max(0.0, min(total - prepaid, room.limit))
    ratio = stays / total if total > 0.0 else 0.0
    return [ratio * slots for slots in held], max(0.0, allowed - used)


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

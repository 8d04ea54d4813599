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
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

from trimtab.model import TenantUse
from trimtab.policy import ranking

PREPAID_MAX = 4.0
T = TypeVar("T")

Row = Sequence[float]
"""One number an edge."""


@dataclass(frozen=True, slots=True)
class Leases:
    """A pool's: by replica a row, in the order of `edges`."""

    edges: tuple[str, ...] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)

    def of(self, edge: str) -> dict[str, float]:
        """One edge's, by replica."""
        if edge not in self.edges:
            return {}
        place = self.edges.index(edge)
        return {replica: row[place] for replica, row in self.rows.items()}


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
) -> Generator[None, None, Leases]:
    """The next leases of one pool's open replicas. O(replicas x edges + waiting log waiting).

    In steps of one replica or edge, so that a large fleet holds nobody up.
    """
    names = tuple(edges)
    running = {name: [0] * len(names) for name in rooms}
    for place, demand in enumerate(edges.values()):
        for name, number in demand.inflight.items():
            if name in running:
                running[name][place] = number
        yield
    wanted = [
        (place, _wanted(demand, leases.of(edge), rooms))
        for place, (edge, demand) in enumerate(edges.items())
        if demand.queued
    ]
    held: dict[str, Row] = {}
    free: dict[str, float] = {}
    for name, room in rooms.items():
        slots = _row(leases, name, names, running[name])
        held[name], free[name] = _collect(slots, running[name], wanted, room)
        yield
    total = sum(free.values())
    if total > 0.0:
        shares = list(_parts(edges, counters, total).values())
        for name, row in held.items():
            held[name] = _add(row, shares, free[name], total)
            yield
    return Leases(names, held)


def whole(row: Row, replica: str, order: Sequence[int]) -> list[int]:
    """One replica's leases as whole numbers of the same sum, rounded down.

    `order` is that of the edges by name: of equal remainders, which are common, the first get the
    rest; each replica begins with another edge, so that none has them all.
    """
    floors = list(map(int, row))
    rest = math.floor(sum(row) + 1e-6) - sum(floors)
    if rest > 0:
        start = zlib.crc32(replica.encode()) % len(order)
        lost = list(map(operator.sub, floors, row))
        for place in sorted([*order[start:], *order[:start]], key=lost.__getitem__)[:rest]:
            floors[place] += 1
    return floors


def _row(leases: Leases, name: str, edges: tuple[str, ...], running: Sequence[int]) -> Row:
    """What each edge has; of an edge that is new to us: what it uses."""
    row = leases.rows.get(name)
    if row is not None and leases.edges == edges:
        return row
    before = dict(zip(leases.edges, row or (), strict=False))
    return [before.get(edge, float(used)) for edge, used in zip(edges, running, strict=True)]


def _wanted(demand: Demand, leases: Mapping[str, float], rooms: Mapping[str, Room]) -> float:
    """What share of its unused leases an edge has requests for."""
    inflight = demand.inflight
    unused = sum(max(0.0, leases.get(name, 0.0) - inflight.get(name, 0)) for name in rooms)
    return min(1.0, demand.queued / unused) if unused > 0.0 else 0.0


def _collect(
    slots: Row, running: Sequence[int], wanted: Iterable[tuple[int, float]], room: Room
) -> tuple[Row, float]:
    """What stays with each edge of one replica, and the room that there is to give."""
    held = [h if h <= at else at for h, at in zip(slots, running, strict=True)]  # noqa: FURB136 - faster
    taken: list[float] = [*running]
    for place, share in wanted:
        held[place] += share * (slots[place] - held[place])
        taken[place] = max(held[place], running[place])
    used, total = sum(taken), sum(held)
    prepaid = min(room.ending, PREPAID_MAX, total)
    allowed = room.limit + prepaid
    if used > allowed:  # what is not in use yet is taken back first
        unused = sum([max(0.0, h - at) for h, at in zip(held, running, strict=True)])
        left = max(0.0, 1.0 - (used - allowed) / unused) if unused > 0.0 else 0.0
        held = [at + left * (h - at) if h > at else h for h, at in zip(held, running, strict=True)]
        total = sum(held)
    stays = max(0.0, min(total - prepaid, room.limit))
    ratio = stays / total if total > 0.0 else 0.0
    return [ratio * slots for slots in held], max(0.0, allowed - used)


def _add(row: Row, shares: Row, free: float, total: float) -> Row:
    """A replica's row with its part of what each edge gets."""
    first = shares[0]
    if shares.count(first) == len(shares):  # nobody waits: all get the same
        part = first * free / total
        return [slots + part for slots in row]
    return [slots + share * free / total for slots, share in zip(row, shares, strict=True)]


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

"""The recent past of replicas and pools, small enough to keep: what the page's timeline draws.

Rules: one writer, one moment a second; a span is longer where its cells are; a cell has the sum of
counts, the most of what waits and runs, the newest limit and the worst of states, so that an
ejection of two seconds is still seen in six hours. A cell that nobody wrote is 0, also its states.
Bounded: at most REPLICAS_MAX replicas and POOLS_MAX pools, a replica takes 33 KB; one that was not
written for the longest span is forgotten.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

T = TypeVar("T")
REPLICAS_MAX = 1_000
POOLS_MAX = 100
_LARGEST = {"B": 2**8 - 1, "H": 2**16 - 1, "I": 2**32 - 1}
ENGINES = (
    *("", "READY", "WARMING", "STARTING", "SLEEPING", "DRAINING", "UNKNOWN", "STALLED", "DEAD"),
)
"""Names of engine states by their code here: the greater the worse."""
USES = (
    *("", "healthy", "spare", "cordoned", "draining", "joining", "ramping", "probing"),
    *("degraded", "avoided", "closed", "ejected", "lost"),
)
"""What is made of a replica, by its code here: the greater the worse."""


class Span(NamedTuple):
    """How long, and how finely."""

    name: str
    step_s: int
    cells: int


SPANS = (Span("15m", 1, 900), Span("1h", 5, 720), Span("6h", 30, 720))


class Replica(NamedTuple):
    """One replica in one moment; `started` are attempts since the moment before."""

    pool: str
    started: int = 0
    inflight: int = 0
    limit: int = 0
    waiting: int = 0
    use: int = 0
    engine: int = 0


class Pool(NamedTuple):
    """One pool in one moment; `requests` and `refused` are those since the moment before."""

    requests: int = 0
    refused: int = 0
    queued: int = 0


class Column(NamedTuple):
    """How a value is kept, and what becomes of two in one cell."""

    name: str
    code: str
    adds: bool = False
    is_newest: bool = False


REPLICA_COLUMNS = (
    Column("started", "I", adds=True),
    Column("inflight", "H"),
    Column("limit", "H", is_newest=True),
    Column("waiting", "H"),
    Column("use", "B"),
    Column("engine", "B"),
)
POOL_COLUMNS = (
    Column("requests", "I", adds=True),
    Column("refused", "I", adds=True),
    Column("queued", "H"),
)


class _Track:
    """One thing over one span: a ring of cells a column."""

    __slots__ = ("columns", "rings")

    def __init__(self, columns: tuple[Column, ...], cells: int) -> None:
        self.columns = columns
        self.rings = [array(c.code, bytes(array(c.code).itemsize * cells)) for c in columns]

    def blank(self, place: int) -> None:
        for ring in self.rings:
            ring[place] = 0

    def put(self, place: int, values: Iterable[int]) -> None:
        for column, ring, value in zip(self.columns, self.rings, values, strict=True):
            if column.adds:
                value += ring[place]  # noqa: PLW2901
            elif not column.is_newest:
                value = max(value, ring[place])  # noqa: PLW2901
            ring[place] = min(max(value, 0), _LARGEST[column.code])

    def at(self, place: int) -> list[int]:
        return [ring[place] for ring in self.rings]

    def unrolled(self, after: int) -> dict[str, bytes]:
        """Each column from its oldest cell to its newest, as little-endian bytes."""
        return {
            column.name: (ring[after:] + ring[:after]).tobytes()
            for column, ring in zip(self.columns, self.rings, strict=True)
        }


class Cell(NamedTuple):
    """One finished cell of a span: values in the order of the columns."""

    span: str
    at_s: int
    replicas: dict[str, list[int]]
    pools: dict[str, list[int]]


class _Level:
    """All tracks over one span."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.newest = -1
        self.replicas: dict[str, _Track] = {}
        self.pools: dict[str, _Track] = {}

    def put(
        self, at_s: float, replicas: Mapping[str, Replica], pools: Mapping[str, Pool]
    ) -> Cell | None:
        """Write a moment; the cell before, when this one begins a new one."""
        cells, number = self.span.cells, int(at_s // self.span.step_s)
        finished = None
        if number > self.newest:
            finished = self._finished() if self.newest >= 0 else None
            for place in range(max(self.newest + 1, number - cells + 1), number + 1):
                for track in (*self.replicas.values(), *self.pools.values()):
                    track.blank(place % cells)
            self.newest = number
        place = self.newest % cells
        for name, replica in replicas.items():
            if name not in self.replicas:
                self.replicas[name] = _Track(REPLICA_COLUMNS, cells)
            self.replicas[name].put(place, replica[1:])
        for name, pool in pools.items():
            if name not in self.pools:
                self.pools[name] = _Track(POOL_COLUMNS, cells)
            self.pools[name].put(place, pool)
        return finished

    def _finished(self) -> Cell:
        place, at_s = self.newest % self.span.cells, self.newest * self.span.step_s
        replicas = {name: track.at(place) for name, track in self.replicas.items()}
        return Cell(
            self.span.name, at_s, replicas, {name: t.at(place) for name, t in self.pools.items()}
        )


class History:
    """All spans of everything; `since_s` is its first moment, in seconds since 1970."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self._levels = {span.name: _Level(span) for span in SPANS}
        self._pools: dict[str, Pool] = {}
        self._pool_of: dict[str, str] = {}
        self._written_s: dict[str, float] = {}

    def add(
        self, at_s: float, replicas: Mapping[str, Replica], pools: Mapping[str, Pool]
    ) -> list[Cell]:
        """Write a moment, in seconds since 1970; the cells that are finished by it.

        A clock that was set back writes into the newest cell.
        """
        self._forget(at_s)
        kept = _bounded(replicas, self._written_s, REPLICAS_MAX)
        pools = _bounded(pools, self._pools, POOLS_MAX)
        self._pools.update(pools)
        self._written_s.update(dict.fromkeys(kept, at_s))
        self._pool_of.update((name, replica.pool) for name, replica in kept.items())
        cells = (level.put(at_s, kept, pools) for level in self._levels.values())
        return [cell for cell in cells if cell]

    def names(self) -> Iterator[str]:
        """Whose past this is."""
        return iter(self._written_s)

    def view(self, span: str) -> dict[str, object]:
        """A span as plain data, its columns as bytes; KeyError when there is none of this name."""
        level = self._levels[span]
        after = (level.newest + 1) % level.span.cells
        return {
            "span": span,
            "step_s": level.span.step_s,
            "cells": level.span.cells,
            "newest_s": level.newest * level.span.step_s,
            "since_s": self.since_s,
            "uses": USES,
            "engines": ENGINES,
            "columns": {
                "replicas": [(c.name, c.code) for c in REPLICA_COLUMNS],
                "pools": [(c.name, c.code) for c in POOL_COLUMNS],
            },
            "replicas": {
                name: {"pool": self._pool_of[name], **track.unrolled(after)}
                for name, track in level.replicas.items()
            },
            "pools": {name: track.unrolled(after) for name, track in level.pools.items()},
        }

    def _forget(self, at_s: float) -> None:
        longest_s = max(span.step_s * span.cells for span in SPANS)
        gone = [name for name, last_s in self._written_s.items() if at_s - last_s > longest_s]
        for name in gone:
            del self._written_s[name], self._pool_of[name]
            for level in self._levels.values():
                level.replicas.pop(name, None)


def _bounded(new: Mapping[str, T], known: Mapping[str, object], most: int) -> Mapping[str, T]:
    """What is known already, and of the rest as much as there is room for."""
    fresh = [name for name in new if name not in known]
    left_out = set(fresh[max(0, most - len(known)) :])
    return {name: one for name, one in new.items() if name not in left_out} if left_out else new

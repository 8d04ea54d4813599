"""The recent past of replicas and pools, small enough to keep: what the page's timeline draws.

Rules: one writer, one moment a second; a span is longer where its cells are; a cell has the sum of
counts, the most of what waits, runs and may run, and the worst of states, so that an ejection of
two seconds is still seen in six hours. A cell that nobody wrote is 0, also its states.
Bounded: at most REPLICAS_MAX replicas and POOLS_MAX pools, a replica takes 33 KB; one that was not
written for the longest span is forgotten.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""The first by the second; the longer cells are made of its seconds."""
_LEVELS = {span.name: level for level, span in enumerate(SPANS)}
_LONGEST_S = max(span.step_s * span.cells for span in SPANS)


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
    """How a value is kept, and whether those of one cell are added up: else the most counts."""

    name: str
    code: str
    adds: bool = False

    def ring(self, cells: int) -> array[int]:
        """So many cells of nothing."""
        return array(self.code, bytes(array(self.code).itemsize * cells))

    def summed(self, values: Iterable[int]) -> int:
        """What one cell makes of several."""
        return min(sum(values) if self.adds else max(values), _LARGEST[self.code])

    def clipped(self, value: int) -> int:
        """What fits."""
        return min(max(value, 0), _LARGEST[self.code])


REPLICA_COLUMNS = (
    Column("started", "I", adds=True),
    Column("inflight", "H"),
    Column("limit", "H"),
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
    """One thing: a ring of cells for each span and column; the longer ones follow the seconds."""

    __slots__ = ("columns", "rings")

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns
        self.rings = [[column.ring(span.cells) for column in columns] for span in SPANS]

    def put(self, second: int, values: Sequence[int], *, first: bool) -> None:
        """Write a second, over whatever was there if it is the first of it."""
        place = second % SPANS[0].cells
        if not first:
            pairs = zip(values, self.at(0, second), strict=True)
            values = [c.summed(pair) for c, pair in zip(self.columns, pairs, strict=True)]
        try:
            for ring, value in zip(self.rings[0], values, strict=True):
                ring[place] = value
        except OverflowError:
            clipped = [c.clipped(value) for c, value in zip(self.columns, values, strict=True)]
            self.put(second, clipped, first=True)

    def blank(self, level: int, first: int, end: int) -> None:
        """Nobody wrote the cells from one up to another."""
        cells = SPANS[level].cells
        if end - first >= cells:
            self.rings[level] = [column.ring(cells) for column in self.columns]
            return
        start, stop = first % cells, end % cells
        for column, ring in zip(self.columns, self.rings[level], strict=True):
            if start <= stop:
                ring[start:stop] = column.ring(stop - start)
            else:
                ring[start:], ring[:stop] = column.ring(cells - start), column.ring(stop)

    def close(self, level: int, number: int, newest: int) -> None:
        """Write a longer cell from its seconds, of which `newest` is the last that is known."""
        span = SPANS[level]
        first = number * span.step_s % SPANS[0].cells  # a cell's seconds never go round the ring
        end = first + min(span.step_s, newest + 1 - number * span.step_s)
        for i, column in enumerate(self.columns):
            seconds = self.rings[0][i][first:end]
            self.rings[level][i][number % span.cells] = column.summed(seconds)

    def at(self, level: int, number: int) -> list[int]:
        return [ring[number % SPANS[level].cells] for ring in self.rings[level]]

    def unrolled(self, level: int, newest: int) -> dict[str, bytes]:
        """Each column from its oldest cell to its newest, as little-endian bytes."""
        after = (newest + 1) % SPANS[level].cells
        return {
            column.name: (ring[after:] + ring[:after]).tobytes()
            for column, ring in zip(self.columns, self.rings[level], strict=True)
        }


class Finished(NamedTuple):
    """A cell that time has closed: of which span, and its number."""

    level: int
    number: int


class Cell(NamedTuple):
    """One cell of a span: values in the order of the columns."""

    span: str
    at_s: int
    replicas: dict[str, list[int]]
    pools: dict[str, list[int]]


class History:
    """All spans of everything; `since_s` is its first moment, in seconds since 1970."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self._newest = -1  # second
        self._replicas: dict[str, _Track] = {}
        self._pools: dict[str, _Track] = {}
        self._pool_of: dict[str, str] = {}
        self._written_s: dict[str, int] = {}

    def add(
        self, at_s: float, replicas: Mapping[str, Replica], pools: Mapping[str, Pool]
    ) -> list[Finished]:
        """Write a moment, in seconds since 1970; the cells that are finished by it.

        A clock that was set back writes into the newest second.
        """
        second, first = max(int(at_s), self._newest), int(at_s) > self._newest
        finished = self._advance(second) if first and self._newest >= 0 else []
        self._newest = second
        self._forget()
        kept = _bounded(replicas, self._replicas, REPLICAS_MAX)
        for name, replica in kept.items():
            self._pool_of[name], self._written_s[name] = replica.pool, second
            self._track(self._replicas, name, REPLICA_COLUMNS).put(second, replica[1:], first=first)
        some = _bounded(pools, self._pools, POOLS_MAX)
        for name, pool in some.items():
            self._track(self._pools, name, POOL_COLUMNS).put(second, pool, first=first)
        if first:
            unwritten = [t for name, t in self._replicas.items() if name not in kept]
            for track in unwritten + [t for name, t in self._pools.items() if name not in some]:
                track.blank(0, second, second + 1)
        return finished

    def cell(self, level: int, number: int) -> Cell:
        """One that has just been finished."""
        span = SPANS[level]
        replicas = {name: track.at(level, number) for name, track in self._replicas.items()}
        pools = {name: track.at(level, number) for name, track in self._pools.items()}
        return Cell(span.name, number * span.step_s, replicas, pools)

    def names(self) -> Iterator[str]:
        """Whose past this is."""
        return iter(self._replicas)

    def view(self, name: str) -> dict[str, object]:
        """A span as plain data, its columns as bytes; KeyError when there is none of this name."""
        level = _LEVELS[name]
        span = SPANS[level]
        newest = max(0, self._newest) // span.step_s
        if level and self._newest >= 0:
            for track in (*self._replicas.values(), *self._pools.values()):
                track.close(level, newest, self._newest)
        return {
            "span": span.name,
            "step_s": span.step_s,
            "cells": span.cells,
            "newest_s": newest * span.step_s,
            "since_s": self.since_s,
            "uses": USES,
            "engines": ENGINES,
            "columns": {
                "replicas": [(c.name, c.code) for c in REPLICA_COLUMNS],
                "pools": [(c.name, c.code) for c in POOL_COLUMNS],
            },
            "replicas": {
                name: {"pool": self._pool_of[name], **track.unrolled(level, newest)}
                for name, track in self._replicas.items()
            },
            "pools": {name: t.unrolled(level, newest) for name, t in self._pools.items()},
        }

    # Inside

    def _advance(self, second: int) -> list[Finished]:
        """Time goes on to a new second: finish the cells before, blank those that were missed."""
        tracks = (*self._replicas.values(), *self._pools.values())
        finished = []
        for level, span in enumerate(SPANS):
            old, new = self._newest // span.step_s, second // span.step_s
            if new == old:
                continue
            for track in tracks if level else ():
                track.close(level, old, self._newest)
            finished.append(Finished(level, old))
        for level, span in enumerate(SPANS):
            old, new = self._newest // span.step_s, second // span.step_s
            for track in tracks if new > old + 1 else ():
                track.blank(level, old + 1, new)
        return finished

    @staticmethod
    def _track(tracks: dict[str, _Track], name: str, columns: tuple[Column, ...]) -> _Track:
        found = tracks.get(name)
        if found is None:
            found = tracks[name] = _Track(columns)
        return found

    def _forget(self) -> None:
        for name in [n for n, s in self._written_s.items() if self._newest - s > _LONGEST_S]:
            del self._written_s[name], self._pool_of[name], self._replicas[name]


def _bounded(new: Mapping[str, T], known: Mapping[str, object], most: int) -> Mapping[str, T]:
    """What is known already, and of the rest as much as there is room for."""
    fresh = [name for name in new if name not in known]
    left_out = set(fresh[max(0, most - len(known)) :])
    return {name: one for name, one in new.items() if name not in left_out} if left_out else new

"""The matrix as a table, and its place in a page."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

from bench.kill.cases import Case
from bench.kill.load import Ask, Load, errors, longest_gap_s

MATRIX = (
    "<!-- kill matrix: written by `./run bench kill --write docs/failure.md` -->",
    "<!-- end of the kill matrix -->",
)
HEAD = (
    "| who | requests | errors that users saw | answers/s before, during, after |"
    " nobody served for at most | no push for at most |\n|---|--:|---|--:|--:|--:|"
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """The moments of a case."""

    began_s: float
    down_s: float
    up_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """What users saw in one case."""

    title: str
    requests: int
    errors: str
    rates: tuple[float, float, float]
    gap_s: float
    push_gap_s: float


def row(case: Case, load: Load, stretch: Stretch, push_gap_s: float) -> Row:
    """Sum up one case."""
    times = (stretch.began_s, stretch.down_s, stretch.up_s, stretch.end_s)
    parts = [load.between(a, b) for a, b in itertools.pairwise(times)]
    seen = load.between(stretch.down_s, float("inf"))
    lengths = [b - a for a, b in itertools.pairwise(times)]
    before, during, after = (
        _whole(part) / length for part, length in zip(parts, lengths, strict=True)
    )
    return Row(
        f"{case.title} ({case.how})" if case.parts else case.title,
        len(seen),
        ", ".join(f"{count} {error}" for error, count in sorted(errors(seen).items())) or "none",
        (before, during, after),
        longest_gap_s(load.asks, stretch.down_s, stretch.end_s),
        push_gap_s,
    )


def line(row: Row) -> str:
    """A row of the table."""
    rates = ", ".join(f"{rate:.0f}" for rate in row.rates)
    return (
        f"| {row.title} | {row.requests} | {row.errors} | {rates} |"
        f" {row.gap_s:.1f} s | {row.push_gap_s:.1f} s |"
    )


def render(lines: Mapping[str, str]) -> str:
    """The table of these rows."""
    return "\n".join([HEAD, *lines.values()])


def merged(path: pathlib.Path, lines: Mapping[str, str]) -> dict[str, str]:
    """The page's rows by title, with these instead of those of the same title, or behind them."""
    text, (begin, close) = path.read_text(), MATRIX
    rows = text[text.index(begin) : text.index(close)].splitlines()[3:]
    return {**{row.split(" | ")[0].removeprefix("| "): row for row in rows if row}, **lines}


def write(path: pathlib.Path, table: str, markers: tuple[str, str] = MATRIX) -> None:
    """Put the table between the page's markers."""
    text, (begin, close) = path.read_text(), markers
    start, end = text.index(begin) + len(begin), text.index(close)
    path.write_text(f"{text[:start]}\n{table}\n{text[end:]}")


def _whole(asks: list[Ask]) -> int:
    return sum(not ask.error for ask in asks)

"""Where words go: data to stdout, talk to stderr.

Rules: colour and redrawing only on a terminal (rich honours NO_COLOR); pure ASCII when the locale
is not UTF-8; lines are never wrapped or cut when they go to a file.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.live import Live

    from ctl.render import Table

_ASCII = str.maketrans({"—": "--", "…": "...", "→": "->"})
_TONES = dict.fromkeys(("ready", "open", "healthy", "yes"), "32") | dict.fromkeys(
    ("stalled", "dead", "lost", "ejected", "no"), "31"
)
_TONE_ELSE = "33"  # green, red, yellow


def speaks_utf8(environ: dict[str, str], encoding: str | None) -> bool:
    """Whether the reader understands more than ASCII.

    CPython turns a C locale into UTF-8 by setting LC_CTYPE=C.UTF-8 (PEP 538), so that value says
    nothing about the reader.
    """
    ctype = environ.get("LC_CTYPE", "")
    locale = environ.get("LC_ALL") or (ctype if ctype != "C.UTF-8" else "") or environ.get("LANG")
    names = [(name or "").lower().replace("-", "") for name in (locale, encoding)]
    return all("utf8" in name for name in names)


class Screen:
    """One command's output."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._utf8 = speaks_utf8(dict(os.environ), self._out.encoding)

    @property
    def tty(self) -> bool:
        """Whether somebody looks at it."""
        return self._out.isatty()

    def data(self, words: str) -> None:
        """Print what was asked for, as it is."""
        print(self._readable(words), end="", file=self._out, flush=True)

    def talk(self, line: str) -> None:
        """Print a remark."""
        print(self._readable(line), file=self._err, flush=True)

    def table(self, table: Table) -> str:
        """The table as text, coloured where that is welcome."""
        colour = self.tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return _lined_up(table, colour=colour)

    def board(self, *, full: bool = False) -> Board:
        """A place on the terminal that is drawn over and over, or all of it."""
        return Board(self._out, full=full)

    def _readable(self, words: str) -> str:
        if self._utf8:
            return words
        return words.translate(_ASCII).encode("ascii", "replace").decode("ascii")


class Board:
    """Text that replaces itself; too wide for the terminal is folded, so nothing is hidden."""

    def __init__(self, out: TextIO, *, full: bool = False) -> None:
        from rich.console import Console  # noqa: PLC0415  only a watch on a terminal needs it
        from rich.live import Live  # noqa: PLC0415

        self._live: Live = Live(
            console=Console(file=out, highlight=False), auto_refresh=False, screen=full
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, words: str) -> None:
        """Draw this instead of what was there."""
        from rich.text import Text  # noqa: PLC0415

        drawn = Text.from_ansi(words, overflow="fold")
        self._live.update(drawn, refresh=True)


def _tone(cell: str) -> str:
    """By its first word."""
    return _TONES.get(cell.partition(" ")[0], _TONE_ELSE)


def _lined_up(table: Table, *, colour: bool) -> str:
    """Columns as wide as they must be. A table library takes a second for a thousand rows."""
    rows = (table.titles, *table.rows)
    widths = [max(map(_cells, column)) for column in zip(*rows, strict=True)]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell + " " * (w - _cells(cell)) for cell, w in zip(row, widths, strict=True)]
        cells[-1] = row[-1]
        if colour:
            cells = [_coloured(cell, number, i in table.toned) for i, cell in enumerate(cells)]
        lines.append(f"{'  '.join(cells).rstrip()}\n")
    return "".join(lines)


def _cells(text: str) -> int:
    """How wide it is on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415  rare

    return cell_len(text)


def _coloured(cell: str, number: int, toned: bool) -> str:
    if number == 0:
        return f"\x1b[1m{cell}\x1b[0m"
    return f"\x1b[{_tone(cell)}m{cell}\x1b[0m" if toned else cell

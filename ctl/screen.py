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
    from rich.table import Table as RichTable

    from ctl.render import Table

WIDTH = 1_000  # wider than any table: the terminal wraps, files keep whole lines
_ASCII = str.maketrans({"—": "--", "…": "...", "→": "->"})
_TONES = dict.fromkeys(("ready", "open", "healthy", "yes"), "green") | dict.fromkeys(
    ("stalled", "dead", "lost", "ejected", "no"), "red"
)
_TONE_ELSE = "yellow"


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
        from rich.console import Console  # noqa: PLC0415  40 ms that JSON need not pay

        console = Console(file=self._out, width=WIDTH, highlight=False, markup=False, emoji=False)
        with console.capture() as capture:
            console.print(_rich(table))
        return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())

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


def _rich(table: Table) -> RichTable:
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in table.titles:
        drawn.add_column(title, no_wrap=True)
    for row in table.rows:
        drawn.add_row(
            *(
                Text(cell, style=_tone(cell) if index in table.toned else "")
                for index, cell in enumerate(row)
            )
        )
    return drawn

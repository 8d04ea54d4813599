"""What reaches a terminal, a pipe, and a reader without UTF-8."""

from __future__ import annotations

import io

import pytest

from ctl.render import Table
from ctl.screen import Screen, speaks_utf8

TABLE = Table(("REPLICA", "ROUTE"), (("gpu[0]", "lost"), ("a" * 150, "open")), frozenset({1}))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Pipe(io.StringIO):
    """A stream that is none."""

    encoding = "utf-8"


def test_a_pipe_gets_plain_whole_lines() -> None:
    text = Screen(Pipe(), Pipe()).table(TABLE)
    assert "\x1b" not in text
    assert [line.split() for line in text.splitlines()] == [
        ["REPLICA", "ROUTE"],
        ["gpu[0]", "lost"],
        ["a" * 150, "open"],
    ]
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_terminal_gets_colour_unless_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[31mlost" in Screen(Terminal(), Pipe()).table(TABLE)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in Screen(Terminal(), Pipe()).table(TABLE)


def test_columns_line_up_also_under_wide_characters() -> None:
    table = Table(("A", "B", "C"), (("x", "\u6c49\u5b57", "1"), ("long", "é", "2")))
    assert Screen(Pipe(), Pipe()).table(table) == (
        "A     B     C\nx     \u6c49\u5b57  1\nlong  é     2\n"
    )
    assert Screen(Pipe(), Pipe()).table(Table(("A",), ())) == "A\n"


@pytest.mark.parametrize(
    ("environ", "encoding", "utf8"),
    [
        ({"LANG": "en_US.UTF-8"}, "utf-8", True),
        ({"LANG": "C.UTF-8"}, "utf-8", True),
        ({"LC_ALL": "de_DE.utf8", "LANG": "C"}, "UTF-8", True),
        ({"LC_CTYPE": "en_US.UTF-8"}, "utf-8", True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "utf-8", False),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, "utf-8", False),
        ({}, "utf-8", False),
        ({"LANG": "en_US.UTF-8"}, "ascii", False),
        ({"LANG": "en_US.UTF-8"}, None, False),
    ],
)
def test_speaks_utf8(environ: dict[str, str], encoding: str | None, utf8: bool) -> None:
    assert speaks_utf8(environ, encoding) is utf8


def test_ascii_readers_get_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "C")
    out, err = Pipe(), Pipe()
    screen = Screen(out, err)
    screen.data("— 3.2 s gap — grün\n")
    screen.talk("a → b…")
    assert (out.getvalue(), err.getvalue()) == ("-- 3.2 s gap -- gr?n\n", "a -> b...\n")


def test_board_replaces_what_it_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    with Screen(out, Pipe()).board() as board:
        board.show("first\n")
        board.show("second " + "x" * 40)
    drawn = out.getvalue()
    assert drawn.index("first") < drawn.index("\x1b[1A") < drawn.index("second")
    assert f"{'x' * 20}\n{'x' * 20}" in drawn

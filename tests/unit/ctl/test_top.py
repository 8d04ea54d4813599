"""`ctl top` on a terminal: drawn over and over, the sick and the busy first."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import cast

import pytest

from ctl.client import Client, Frame, Lost
from ctl.exits import Exit
from ctl.screen import Screen
from ctl.top import bar, look, page
from tests.fakes.fleet import FLEET, GPU0, WELL
from tests.unit.ctl.test_screen import Pipe, Terminal


class Script:
    """A control plane that shows two fleets, and is lost between them."""

    async def watch(self) -> AsyncGenerator[Frame | Lost, None]:
        yield Frame(WELL)
        yield Lost("refused")
        yield Frame(FLEET, 3.2)


async def test_a_terminal_is_filled_and_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    assert await look(cast(Client, Script()), Screen(terminal, Pipe()), "replicas") is Exit.OK
    shown = terminal.getvalue()
    assert shown.startswith("\x1b[?1049h"), "on the terminal's other screen"
    assert shown.rstrip().endswith("\x1b[?1049l") or "\x1b[?1049l" in shown, "and back again"
    assert "lab-a is OK" in shown
    assert "connection lost (refused), trying again" in shown
    assert "lab-a is DEGRADED" in shown


@pytest.mark.parametrize(
    ("used", "room", "drawn"),
    [(0, 0, "0/0"), (5, 10, "##########....."), (30, 10, "####################] 30/10")],
)
def test_how_full(used: int, room: int, drawn: str) -> None:
    assert drawn in bar(used, room)


def test_the_busiest_of_those_that_are_well_comes_first() -> None:
    idle = replace(GPU0, inflight=1, route=replace(GPU0.route, replica="a"))
    shown = page(Screen(Pipe(), Pipe()), replace(WELL, replicas=(idle, GPU0)), "replicas")
    assert shown.index("gpu0") < shown.index("\na ")

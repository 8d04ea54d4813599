"""What `ctl get` does with a fleet: print it once, or follow it.

A terminal shows one table that redraws itself; a pipe gets a block for each change. Data formats
keep stdout clean: what is said about the connection goes to stderr.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from ctl import nouns, render
from ctl.client import Client, Frame, Lost
from ctl.columns import VIEWS, names, only
from ctl.exits import CtlError, Exit
from ctl.options import Format
from ctl.screen import Board, Screen
from trimtab.verdict import LEADERLESS
from trimtab.views import Fleet


@dataclass(frozen=True, slots=True)
class Listing:
    """What was asked for."""

    screen: Screen
    noun: str
    name: str
    form: Format

    def select(self, fleet: Fleet) -> Fleet:
        """The part of the fleet that was asked for."""
        return only(VIEWS[self.noun], fleet, self.name) if self.name else fleet

    def check(self, fleet: Fleet) -> None:
        """CtlError when the fleet has nothing of the name asked for."""
        if self.name:
            check(self.noun, fleet, self.name)

    def text(self, fleet: Fleet) -> str:
        """The selected part in the format asked for."""
        view = VIEWS[self.noun]
        if not self.form.is_table:
            return render.data(view, fleet, self.form)
        wide = self.form is Format.WIDE
        return self.screen.table(render.table(view, fleet, wide=wide))


def check(noun: str, fleet: Fleet, name: str) -> None:
    """CtlError when the fleet has nothing of that kind and name."""
    view = VIEWS[noun]
    known = names(view, fleet)
    if name not in known:
        hint = nouns.closest(name, known) or f" See: ctl get {noun}"
        raise CtlError(Exit.NOT_FOUND, f'there is no {view.kind.lower()} "{name}".{hint}')


async def look(plane: Client, listing: Listing) -> Exit:
    """Print once."""
    fleet, view = await plane.fleet(), VIEWS[listing.noun]
    if not fleet.leader:
        listing.screen.talk(LEADERLESS)
    listing.check(fleet)
    if listing.form.is_table and not view.items(fleet):
        listing.screen.talk(view.none)
    else:
        listing.screen.data(listing.text(listing.select(fleet)))
    return Exit.OK


async def follow(plane: Client, listing: Listing) -> Exit:
    """Print on every change until interrupted.

    Only the first look must have the name: a control plane that just started knows nobody yet.
    """
    redraw = listing.form.is_table and listing.screen.tty
    board = listing.screen.board() if redraw else None
    printer = _Blocks(listing) if board is None else _Redraw(listing, board)
    checked = False
    with board or nullcontext():
        async for seen in plane.watch():
            if isinstance(seen, Lost):
                printer.lost(f"connection lost ({seen.reason}), trying again")
                continue
            if not checked:
                listing.check(seen.fleet)
                checked = True
            printer.frame(Frame(listing.select(seen.fleet), seen.gap_s))
    return Exit.OK


def _gap(frame: Frame) -> str:
    return "" if frame.gap_s is None else f"— reconnected, {frame.gap_s:.1f} s gap —"


class _Blocks:
    """One block after another, only when there is news."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._news: object = None

    def lost(self, line: str) -> None:
        self._listing.screen.talk(line)

    def frame(self, frame: Frame) -> None:
        listing, gap = self._listing, _gap(frame)
        if gap and listing.form.is_table:
            listing.screen.data(f"{gap}\n")
        elif gap:
            listing.screen.talk(gap)
        news = render.news(VIEWS[listing.noun], frame.fleet, listing.form)
        if news == self._news:
            return
        between = "\n" if listing.form.is_table and self._news is not None else ""
        listing.screen.data(between + listing.text(frame.fleet))
        self._news = news


class _Redraw:
    """One table in place, with what was said about the connection below it."""

    def __init__(self, listing: Listing, board: Board) -> None:
        self._listing = listing
        self._board = board
        self._text = ""
        self._note = ""

    def lost(self, line: str) -> None:
        self._note = line
        self._show()

    def frame(self, frame: Frame) -> None:
        self._note = _gap(frame) or ("" if self._note.startswith("conn") else self._note)
        self._text = self._listing.text(frame.fleet)
        self._show()

    def _show(self) -> None:
        self._board.show(f"{self._text}{self._note}")

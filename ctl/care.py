"""How much care a change takes: none, a yes, or a name; and the options that all changes have.

Rules: what a change does is said before anybody is asked; who is not there is never asked, but told
which flag says yes; --dry-run asks nothing and changes nothing.
"""

from __future__ import annotations

import getpass
import socket
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from ctl.exits import CtlError, Exit
from ctl.screen import Screen
from trimtab.runtime import spans
from trimtab.steered import Order

NOTHING = "Nothing was changed."

Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and do nothing.")]
Confirm = Annotated[
    str,
    typer.Option(
        "--confirm", metavar="NAME", help="Yes, although clients of a model will have nobody."
    ),
]
IfRevision = Annotated[
    int | None,
    typer.Option(
        "--if-revision", metavar="N", help="Only if nobody changed it after this revision."
    ),
]
For = Annotated[str, typer.Option("--for", help="How long it holds: 90s, 30m, 1h, 7d.")]


@dataclass(frozen=True, slots=True)
class Care:
    """What was typed beside the change itself."""

    order: Order
    yes: bool = False
    dry_run: bool = False
    confirm: str = ""

    def allows(self, screen: Screen, impact: str) -> bool:
        """Whether to go on, after saying what that does; CtlError when the answer is no."""
        screen.talk(impact)
        if self.dry_run:
            screen.talk(f"Dry run. {NOTHING}")
            return False
        if self.yes or self.confirm:
            return True
        if not sys.stdin.isatty():
            raise CtlError(Exit.USAGE, f"nobody is there to ask: say --yes. {NOTHING}")
        if not typer.confirm("Continue?", err=True):
            raise CtlError(Exit.FAILED, NOTHING)
        return True

    def allows_outage(self, screen: Screen, name: str, danger: str, again: str) -> bool:
        """The same for what takes the last from somebody: its name has to be typed."""
        if self.dry_run or self.confirm == name:
            return self.allows(screen, danger)
        if not sys.stdin.isatty():
            text = f"{danger}\nIf you mean it: {again} --confirm {name}"
            raise CtlError(Exit.CONFLICT, text)
        screen.talk(danger)
        if typer.prompt(f"Type {name} if you mean it", default="", err=True) != name:
            raise CtlError(Exit.FAILED, NOTHING)
        return True


def order(reason: str, if_revision: int | None = None) -> Order:
    """Who asks, for the record, and why."""
    return Order(actor(), reason, if_revision)


def actor() -> str:
    """Who is asking; a certificate says it better."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def milliseconds(words: str, flag: str) -> int:
    """A length of time as people write it."""
    length_s = spans.seconds(words)
    if length_s is None:
        raise CtlError(Exit.USAGE, f'{flag} "{words}" is no time: give 90s, 30m, 1h or 7d')
    return length_s * 1000

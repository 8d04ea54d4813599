"""`ctl snapshot save|restore|show`: what the store keeps, as a file."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ctl import state_file
from ctl.care import Care, DryRun, Reason, Yes, actor, order
from ctl.exits import Exit
from ctl.options import Server, target
from ctl.screen import Screen
from trimtab.views import StateHeader, StateRecord

if TYPE_CHECKING:
    from ctl.client import Restored

snapshot = typer.Typer(
    name="snapshot", help="Save and restore what the control plane keeps.", no_args_is_help=True
)
File = Annotated[str, typer.Argument(metavar="FILE", help="The file; - is stdout or stdin.")]


@snapshot.command()
def save(context: typer.Context, file: File, server: Server = "") -> None:
    """Write everything that the control plane keeps, as of one moment."""
    from ctl import client  # noqa: PLC0415  grpc is slow to import

    async def work(plane: client.Client) -> Exit:
        header, records = await plane.save_state()
        state_file.save(file, state_file.render(header, records))
        Screen().talk(f"saved {describe(header, records)}")
        return Exit.OK

    raise typer.Exit(client.run(target(context, server), work))


@snapshot.command()
def restore(
    context: typer.Context,
    file: File,
    yes: Yes = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    server: Server = "",
) -> None:
    """Make the control plane keep exactly what a file holds; edges keep serving meanwhile."""
    from ctl import client  # noqa: PLC0415  grpc is slow to import

    header, records = state_file.parse(state_file.load(file), file)
    screen = Screen()

    async def work(plane: client.Client) -> Exit:
        screen.talk(f"restoring {describe(header, records)}")
        will = await plane.restore_state(records, reason, actor(), preview=True)
        if will.fleet != header.fleet:
            screen.talk(f"note: it was saved from fleet {header.fleet}, and this is {will.fleet}")
        impact = f"fleet {will.fleet}: {_counts(will)}"
        if not Care(order(reason), yes, dry_run).allows(screen, impact):
            return Exit.OK
        done = await plane.restore_state(records, reason, actor(), preview=False)
        screen.data(f"fleet {done.fleet} restored: {_counts(done)}\n")
        return Exit.OK

    raise typer.Exit(client.run(target(context, server), work))


@snapshot.command()
def show(file: File) -> None:
    """Say what a file holds, if it is whole."""
    header, records = state_file.parse(state_file.load(file), file)
    screen = Screen()
    screen.data(f"{describe(header, records)}\nby trimtab {header.software_version}, ")
    screen.data(f"schema {header.schema}, revision {header.revision}\n")


def describe(header: StateHeader, records: list[StateRecord]) -> str:
    """A saved state in one line: whose, when, how much of what."""
    at = datetime.fromtimestamp(header.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    kinds = Counter(record.key.split("/")[1] for record in records if record.key.count("/") > 1)
    parts = "".join(f", {count} {kind}" for kind, count in sorted(kinds.items()))
    return f"fleet {header.fleet} of {at}: {header.records} records{parts}"


def _counts(of: Restored) -> str:
    return f"{of.added} records added, {of.changed} changed, {of.removed} removed"

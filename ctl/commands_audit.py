"""`ctl audit`: who changed what, when and why."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer

from ctl.care import milliseconds
from ctl.exits import CtlError, Exit
from ctl.options import Format, Output, Server, target
from ctl.screen import Screen
from trimtab.runtime import clock
from trimtab.steered import fault


def audit(
    context: typer.Context,
    since: Annotated[str, typer.Option("--since", help="Not older than: 30m, 7d.")] = "",
    actor: Annotated[str, typer.Option("--actor", help="Only what he changed.")] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the chain of hashes instead; exit 1 if broken.")
    ] = False,
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Show who changed what, oldest first. The newest 4096 changes are kept."""
    since_ms = round(clock.wall_s() * 1000) - milliseconds(since, "--since") if since else 0
    if verify and (since or actor):
        raise CtlError(Exit.USAGE, "--verify looks at all that is kept: leave --since and --actor")
    from ctl import client, overrides, render  # noqa: PLC0415  grpc is slow to import
    from ctl.steer import Steer  # noqa: PLC0415

    screen = Screen()

    async def work(plane: client.Client) -> Exit:
        entries, newest = await Steer(plane).audit(since_ms, actor)
        if verify:
            wrong = fault(entries, newest) if newest else ""
            screen.data(f"{wrong or f'whole: {len(entries)} changes, none missing or altered'}\n")
            return Exit.FAILED if wrong else Exit.OK
        if not output.is_table:
            items = [render.item(one) for one in entries]
            names = [str(one.number) for one in entries]
            screen.data(render.listed("AuditEntry", items, names, output))
        elif not entries:
            screen.talk("nobody has changed anything" + (" since then" if since else ""))
        for one in entries if output.is_table else ():
            screen.data(overrides.audit_line(one, _when(one.at_ms)) + "\n")
        return Exit.OK

    raise typer.Exit(client.run(target(context, server), work))


def _when(at_ms: int) -> str:
    at = datetime.datetime.fromtimestamp(at_ms / 1000).astimezone()
    return at.strftime("%Y-%m-%d %H:%M:%S")

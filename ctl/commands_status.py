"""`ctl status`: is the fleet all right, on one screen."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl.exits import Exit
from ctl.options import Format, Server, allow, target
from ctl.screen import Screen


def status(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 10 when degraded, 11 when down.")
    ] = False,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="table, json or yaml.")
    ] = Format.TABLE,
    server: Server = "",
) -> None:
    """Say whether the fleet is all right, and what speaks against it."""
    allow(output, Format.TABLE, Format.JSON, Format.YAML)
    from ctl import client, overrides, render  # noqa: PLC0415  grpc is slow to import
    from trimtab.verdict import Level, judge  # noqa: PLC0415

    exits = {Level.OK: Exit.OK, Level.DEGRADED: Exit.DEGRADED, Level.DOWN: Exit.DOWN}
    screen = Screen()

    async def work(plane: client.Client) -> Exit:
        fleet = await plane.fleet()
        if output is not Format.TABLE:
            screen.data(render.plain(render.verdict(fleet), output))
            return exits[judge(fleet).level] if check else Exit.OK
        page = render.status(fleet)
        pools = f"\n{screen.table(page.pools)}" if page.pools.rows else ""
        lines = (*page.head, *overrides.banner(fleet), pools.rstrip("\n"), *page.problems)
        screen.data("".join(f"{line}\n" for line in lines if line))
        return exits[judge(fleet).level] if check else Exit.OK

    raise typer.Exit(client.run(target(context, server), work))

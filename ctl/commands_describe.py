"""`ctl describe` and `ctl top`: everything about one thing, and who has how much to do."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl import nouns
from ctl.exits import CtlError, Exit
from ctl.options import Format, Server, target
from ctl.screen import Screen

LIVE = ("replicas", "pools", "edges")


def describe(
    context: typer.Context,
    noun: Annotated[str, typer.Argument(help="replica, node, edge or model.")],
    name: Annotated[str, typer.Argument(help="Its name.")],
    output: Annotated[Format, typer.Option("--output", "-o", help="table or json.")] = Format.TABLE,
    server: Server = "",
) -> None:
    """Show everything about one thing: its columns, why it is so, its last 20 events."""
    kind = nouns.find(noun)
    if kind is None:
        known = "replica, node, edge or model"
        raise CtlError(Exit.USAGE, f'cannot describe "{noun}". Like: ctl describe {known} NAME')
    if output not in {Format.TABLE, Format.JSON}:
        raise CtlError(Exit.USAGE, f"--output here is one of table, json, not {output.value}")
    from ctl import client, describe  # noqa: PLC0415  grpc is slow to import

    screen = Screen()

    async def work(plane: client.Client) -> Exit:
        found = await describe.gather(plane, kind, name)
        show = describe.document if output is Format.JSON else describe.page
        screen.data(show(found))
        return Exit.OK

    raise typer.Exit(client.run(target(context, server), work))


def top(
    context: typer.Context,
    noun: Annotated[str, typer.Argument(help="replicas, models or edges.")] = "replicas",
    server: Server = "",
) -> None:
    """Show who has how much to do, again each second until Ctrl-C; off a terminal once."""
    kind = nouns.find(noun)
    if kind not in LIVE:
        known = "replicas, models and edges"
        raise CtlError(Exit.USAGE, f'there is no "top {noun}"; there are {known}')
    from ctl import client  # noqa: PLC0415  grpc is slow to import
    from ctl import top as drawn  # noqa: PLC0415

    screen = Screen()

    async def work(plane: client.Client) -> Exit:
        return await drawn.look(plane, screen, str(kind))

    raise typer.Exit(client.run(target(context, server), work))

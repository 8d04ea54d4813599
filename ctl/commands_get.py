"""`ctl get`: things of one kind, once or whenever something about them changes."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl import live_names, nouns
from ctl.exits import CtlError, Exit
from ctl.options import Format, Output, Server, target
from ctl.screen import Screen


def get(
    context: typer.Context,
    noun: Annotated[
        str,
        typer.Argument(
            help=f"One of: {', '.join(nouns.NOUNS)}.", autocompletion=lambda: list(nouns.NOUNS)
        ),
    ],
    name: Annotated[
        str,
        typer.Argument(help="Only this one.", show_default=False, autocompletion=live_names.of("")),
    ] = "",
    output: Output = Format.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again on every change.")] = False,
    server: Server = "",
) -> None:
    """Show replicas, edges, agents or pools."""
    kind = nouns.find(noun)
    if kind is None:
        known = list(nouns.NOUNS)
        hint = nouns.closest(noun, known) or f" There are: {', '.join(known)}."
        raise CtlError(Exit.USAGE, f'cannot get "{noun}".{hint}')
    from ctl import client  # noqa: PLC0415  grpc is slow to import
    from ctl.listing import Listing, follow, look  # noqa: PLC0415

    listing = Listing(Screen(), kind, name, output)

    async def work(plane: client.Client) -> Exit:
        return await (follow if watch else look)(plane, listing)

    raise typer.Exit(client.run(target(context, server), work))

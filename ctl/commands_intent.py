"""`ctl cordon`, `uncordon`, `drain`: what the operator wants of one replica."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl import live_names
from ctl.exits import Exit
from ctl.intents import Wish, express, wait_until_empty
from ctl.options import Server, target
from ctl.screen import Screen
from trimtab.model import Intent

Replica = Annotated[
    str, typer.Argument(help="The replica's name.", autocompletion=live_names.of("replicas"))
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
Confirm = Annotated[
    str,
    typer.Option(
        "--confirm", metavar="NAME", help="Yes, close this replica although it is the last open."
    ),
]


def cordon(
    context: typer.Context,
    replica: Replica,
    reason: Reason = "",
    confirm: Confirm = "",
    server: Server = "",
) -> None:
    """Give a replica no new requests; what it has goes on."""
    _change(context, server, Wish(replica, Intent.CORDONED, reason, confirm))


def uncordon(
    context: typer.Context, replica: Replica, reason: Reason = "", server: Server = ""
) -> None:
    """Undo cordon and drain."""
    _change(context, server, Wish(replica, Intent.ACTIVE, reason))


def drain(
    context: typer.Context,
    replica: Replica,
    reason: Reason = "",
    confirm: Confirm = "",
    server: Server = "",
) -> None:
    """Cordon a replica and wait until nothing runs on it; Ctrl-C ends the waiting only."""
    _change(context, server, Wish(replica, Intent.DRAINING, reason, confirm))


def _change(context: typer.Context, server: str, wish: Wish) -> None:
    from ctl import client  # noqa: PLC0415  grpc is slow to import

    screen = Screen()
    asked = False

    async def work(plane: client.Client) -> Exit:
        nonlocal asked
        await express(plane, screen, wish)
        asked = True
        if wish.intent is Intent.DRAINING:
            await wait_until_empty(plane, screen, wish.replica)
        return Exit.OK

    try:
        code = client.run(target(context, server), work)
    except KeyboardInterrupt:
        if asked:
            screen.talk(
                f"stopped watching; {wish.replica} goes on draining.\n"
                f"Watch: ctl get replica {wish.replica} -w   Undo: ctl uncordon {wish.replica}"
            )
        code = Exit.INTERRUPTED
    raise typer.Exit(code)

"""`ctl node`: who may join, who is in, who is out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ctl.care import Reason, milliseconds, order
from ctl.exits import Exit
from ctl.options import Format, Output, Server, target
from ctl.screen import Screen

if TYPE_CHECKING:
    from ctl.nodes import Nodes

node = typer.Typer(
    help="Let nodes join, list them, shut them out.", no_args_is_help=True, rich_markup_mode=None
)
token = typer.Typer(help="One-time tokens to join with.", no_args_is_help=True)
node.add_typer(token, name="token")


@token.command("create")
def create(
    context: typer.Context,
    role: Annotated[str, typer.Option(help="agent, edge, admin or scaler.")] = "agent",
    name: Annotated[str, typer.Option(help="The name it must take; default: its own choice.")] = "",
    ttl: Annotated[str, typer.Option(help="How long it may be used: 90s, 30m, 1h, 7d.")] = "1h",
    reason: Reason = "",
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Print the line to paste on a new node."""
    ttl_ms, screen = milliseconds(ttl, "--ttl"), Screen()

    async def work(nodes: Nodes) -> None:
        made = await nodes.create_token(role, name, ttl_ms, order(reason))
        screen.data(made.text(screen, output))
        screen.talk(f"good once, within {ttl}; whoever has this line may become that {role}")

    _run(context, server, work)


@token.command("list")
def list_tokens(context: typer.Context, output: Output = Format.TABLE, server: Server = "") -> None:
    """Show the tokens that can still be used."""
    screen = Screen()

    async def work(nodes: Nodes) -> None:
        screen.data((await nodes.tokens()).text(screen, output))

    _run(context, server, work)


@token.command("revoke")
def revoke_token(
    context: typer.Context,
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    reason: Reason = "",
    server: Server = "",
) -> None:
    """Take a token back."""

    async def work(nodes: Nodes) -> None:
        await nodes.revoke_token(token_id, order(reason))
        Screen().data(f"{token_id}: taken back\n")

    _run(context, server, work)


@node.command("list")
def list_nodes(context: typer.Context, output: Output = Format.TABLE, server: Server = "") -> None:
    """Show the certificates that have not expired."""
    screen = Screen()

    async def work(nodes: Nodes) -> None:
        screen.data((await nodes.identities()).text(screen, output))

    _run(context, server, work)


@node.command("revoke")
def revoke(
    context: typer.Context,
    who: Annotated[str, typer.Argument(metavar="NAME|SERIAL", help="As `list` shows it.")],
    reason: Reason = "",
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Shut out all certificates of a name, or one by its serial number, at once and for good."""
    screen = Screen()

    async def work(nodes: Nodes) -> None:
        done = await nodes.revoke(who, order(reason))
        screen.data(done.text(screen, output))
        if not done.items:
            screen.talk(f"{who} was out already")

    _run(context, server, work)


def _run(context: typer.Context, server: str, work: object) -> None:
    from ctl import nodes  # noqa: PLC0415  grpc is slow to import

    nodes.run(target(context, server), work)  # type: ignore[arg-type]
    raise typer.Exit(Exit.OK)

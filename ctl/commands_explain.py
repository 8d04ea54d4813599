"""`ctl explain` and `ctl events`: why, and what happened."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl import nouns
from ctl.exits import CtlError, Exit
from ctl.options import Format, Server, target
from ctl.screen import Screen

About = Annotated[
    str, typer.Option("--for", help="Only about this replica, edge, node or pool, by its name.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Stay, and tell what happens.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="table or jsonl.")]


def explain(
    context: typer.Context,
    noun: Annotated[str, typer.Argument(help="replica")],
    name: Annotated[str, typer.Argument(help="Its name.")],
    output: Annotated[Format, typer.Option("--output", "-o", help="table or json.")] = Format.TABLE,
    server: Server = "",
) -> None:
    """Say why a replica gets the traffic it gets; exit 10 when it gets no new requests."""
    if nouns.find(noun) != "replicas":
        raise CtlError(Exit.USAGE, f'cannot explain "{noun}". Like: ctl explain replica NAME')
    _allow(output, Format.TABLE, Format.JSON)
    from ctl import client, render, told  # noqa: PLC0415  grpc is slow to import

    screen = Screen()

    async def work(plane: client.Client) -> Exit:
        found = await plane.explain(name)
        is_data = output is Format.JSON
        screen.data(render.document(found) if is_data else told.explanation(found))
        return Exit.OK if found.in_rotation else Exit.DEGRADED

    raise typer.Exit(client.run(target(context, server), work))


def events(
    context: typer.Context,
    about: About = "",
    limit: Limit = 50,
    follow: Follow = False,
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Show what happened to the fleet, as the leader has it in memory."""
    _allow(output, Format.TABLE, Format.JSONL)
    from ctl import client, render, told  # noqa: PLC0415  grpc is slow to import

    screen = Screen()

    async def work(plane: client.Client) -> Exit:
        async for seen in plane.events(about, limit, follow=follow):
            if isinstance(seen, client.Lost):
                screen.talk(f"connection lost ({seen.reason}), trying again")
                continue
            if seen.lost:
                screen.talk(f"{seen.lost} events were missed: more happened than is kept")
            line = render.line if output is Format.JSONL else told.event
            screen.data("".join(f"{line(event)}\n" for event in seen.events))
        return Exit.OK

    raise typer.Exit(client.run(target(context, server), work))


def _allow(output: Format, *forms: Format) -> None:
    if output not in forms:
        known = ", ".join(form.value for form in forms)
        raise CtlError(Exit.USAGE, f"--output here is one of {known}, not {output.value}")

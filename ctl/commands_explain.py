"""`ctl explain` and `ctl events`: why, and what happened."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl.exits import CtlError, Exit
from ctl.options import Format, Server, allow, target
from ctl.screen import Screen
from trimtab.runtime import spans
from trimtab.views import Concern

_EXITS = {Concern.LIMITS: Exit.DEGRADED, Concern.BLOCKS: Exit.DOWN}
_SUBJECTS = {
    "replica": ("replica", "replicas", "re"),
    "request": ("request", "requests", "req"),
    "tenant": ("tenant", "tenants", "te"),
    "model": ("model", "models", "mo", "pool", "pools", "po"),
}
About = Annotated[
    str, typer.Option("--for", help="Only about this replica, edge, node or pool, by its name.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Stay, and tell what happens.")]
Since = Annotated[str, typer.Option("--since", help="Not older than this, like 90s, 15m, 2h.")]
Kind = Annotated[
    str, typer.Option("--type", help="Only those whose kind has this word in it, like breaker.")
]
Output = Annotated[Format, typer.Option("--output", "-o", help="table or jsonl.")]


def explain(
    context: typer.Context,
    noun: Annotated[str, typer.Argument(help="replica, request, tenant or model.")],
    name: Annotated[str, typer.Argument(help="Its name; of a request its x-request-id.")],
    output: Annotated[
        Format, typer.Option("--output", "-o", help="table, json or yaml.")
    ] = Format.TABLE,
    server: Server = "",
) -> None:
    """Say why a replica gets what it gets, how a request went, how a tenant or a model is served.

    Exit 10: a replica gets no new requests, a request was not answered, a tenant had some refused,
    a model has less than it could. Exit 11: a tenant or a model gets nothing.
    """
    subject = _subject(noun)
    if not subject:
        known = "replica NAME, request ID, tenant NAME or model NAME"
        raise CtlError(Exit.USAGE, f'cannot explain "{noun}". Like: ctl explain {known}')
    allow(output, Format.TABLE, Format.JSON, Format.YAML)
    from ctl import accounts, client, render, told  # noqa: PLC0415  grpc is slow to import

    screen = Screen()
    is_data = output is not Format.TABLE

    async def work(plane: client.Client) -> Exit:
        if subject != "replica":
            account = await accounts.ask(plane, subject, name)
            screen.data(render.account(account, output) if is_data else told.account(account))
            return _EXITS.get(account.concern, Exit.OK)
        found = await plane.explain(name)
        screen.data(render.document(found, output) if is_data else told.explanation(found))
        return Exit.OK if found.in_rotation else Exit.DEGRADED

    raise typer.Exit(client.run(target(context, server), work))


def events(
    context: typer.Context,
    about: About = "",
    limit: Limit = 50,
    follow: Follow = False,
    since: Since = "",
    kind: Kind = "",
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Show what happened to the fleet; a new leader knows what the one before has stored."""
    allow(output, Format.TABLE, Format.JSONL)
    since_ms = _milliseconds(since) if since else 0
    from ctl import client, render, told  # noqa: PLC0415  grpc is slow to import
    from trimtab.v1.admin_pb2 import WatchEventsRequest  # noqa: PLC0415

    screen = Screen()
    request = WatchEventsRequest(
        about=about, limit=limit, follow=follow, since_ms=since_ms, what=kind
    )

    async def work(plane: client.Client) -> Exit:
        async for seen in plane.events(request):
            if isinstance(seen, client.Lost):
                screen.talk(f"connection lost ({seen.reason}), trying again")
                continue
            if seen.lost:
                screen.talk(f"{seen.lost} events were missed: more happened than is kept")
            line = render.line if output is Format.JSONL else told.event
            screen.data("".join(f"{line(event)}\n" for event in seen.events))
        return Exit.OK

    raise typer.Exit(client.run(target(context, server), work))


def _milliseconds(age: str) -> int:
    """An age as typed; CtlError when it is none."""
    length_s = spans.seconds(age, digits=9)
    if length_s is None:
        raise CtlError(Exit.USAGE, f'--since is a number and s, m, h or d, like 15m, not "{age}"')
    return length_s * 1_000


def _subject(word: str) -> str:
    """What is to be explained; empty if it can't be."""
    named = (subject for subject, names in _SUBJECTS.items() if word.lower() in names)
    return next(named, "")

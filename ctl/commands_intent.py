"""`ctl cordon`, `uncordon`, `drain`: what the operator wants of a replica or a node."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ctl import live_names
from ctl.care import Care, Confirm, DryRun, IfRevision, Reason, Yes, milliseconds, order
from ctl.exits import CtlError, Exit
from ctl.intents import Wish
from ctl.options import Server, target
from ctl.screen import Screen
from trimtab.model import Intent

KINDS = {"replica": "replica", "re": "replica", "node": "node", "no": "node"}
KINDS |= {"edge": "edge", "ed": "edge"}
What = Annotated[
    list[str],
    typer.Argument(
        metavar="[replica|node|edge] NAME",
        help="Which; a replica, if not said.",
        autocompletion=live_names.of("replicas"),
    ),
]


def cordon(
    context: typer.Context,
    what: What,
    reason: Reason = "",
    confirm: Confirm = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """Give a replica, or all of a node, no new requests; what runs goes on. Edges are drained."""
    care = Care(order(reason, if_revision), yes, dry_run, confirm)
    _change(context, server, _wish(what, Intent.CORDONED, care))


def uncordon(
    context: typer.Context,
    what: What,
    reason: Reason = "",
    dry_run: DryRun = False,
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """Undo cordon and drain."""
    care = Care(order(reason, if_revision), dry_run=dry_run)
    _change(context, server, _wish(what, Intent.ACTIVE, care))


def drain(
    context: typer.Context,
    what: What,
    deadline: Annotated[
        str, typer.Option("--deadline", help="Wait so long at most: 90s, 15m; exit 7 then.")
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait.")] = False,
    reason: Reason = "",
    confirm: Confirm = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """Cordon, and wait until nothing runs there; Ctrl-C and the deadline end the waiting only.

    An edge that is drained says it is not ready, for a day at most, and serves what comes.
    """
    care = Care(order(reason, if_revision), yes, dry_run, confirm)
    wait_ms = milliseconds(deadline, "--deadline") if deadline else None
    _change(context, server, _wish(what, Intent.DRAINING, care), 0 if detach else wait_ms)


def _wish(what: list[str], intent: Intent, care: Care) -> Wish:
    """One word is a replica's name, two are a kind and a name."""
    kind = KINDS.get(what[0], "") if len(what) == 2 else "replica"
    if len(what) > 2 or not kind:
        text = f'"{" ".join(what)}" is none of replica NAME, node NAME, edge NAME'
        raise CtlError(Exit.USAGE, text)
    if kind == "edge" and intent is Intent.CORDONED:
        raise CtlError(Exit.USAGE, f"an edge is drained, not cordoned: ctl drain edge {what[1]}")
    return Wish(kind, what[-1], intent, care)


def _change(context: typer.Context, server: str, wish: Wish, wait_ms: int | None = None) -> None:
    from ctl import client, edges, intents  # noqa: PLC0415  grpc is slow to import

    screen = Screen()
    asked = False
    kind = edges if wish.kind == "edge" else intents

    async def work(plane: client.Client) -> Exit:
        nonlocal asked
        names = await kind.express(plane, screen, wish)
        asked = True
        if wish.intent is not Intent.DRAINING or not names or wait_ms == 0:
            return Exit.OK
        try:
            async with asyncio.timeout(None if wait_ms is None else wait_ms / 1000):
                await kind.wait_until_empty(plane, screen, names)
        except TimeoutError:
            raise intents.timed_out(names, await plane.fleet(), wait_ms or 0, wish) from None
        return Exit.OK

    try:
        code = client.run(target(context, server), work)
    except KeyboardInterrupt:
        if asked:
            screen.talk(
                f"stopped watching; {wish.name} goes on draining.\n"
                f"Watch: {wish.words}   Undo: {wish.undo}"
            )
        code = Exit.INTERRUPTED
    raise typer.Exit(code)

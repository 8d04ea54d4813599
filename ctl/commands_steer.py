"""`ctl weights`, `breaker`, `probe`, `pause`, `resume`: what is put in the place of automation.

Rule: whatever is set has an end, and what ends it before is said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ctl import live_names
from ctl.care import Care, DryRun, For, IfRevision, Reason, Yes, milliseconds, order
from ctl.exits import Exit
from ctl.options import Format, Output, Server, target
from ctl.screen import Screen
from trimtab.steered import Override, OverrideKind

if TYPE_CHECKING:
    from ctl.client import Client
    from ctl.render import Table

weights = typer.Typer(
    name="weights", help="How the replicas of a model share its load.", no_args_is_help=True
)
breaker = typer.Typer(
    name="breaker",
    help="Whether a replica is in use: see it, reset it, hold it.",
    no_args_is_help=True,
)
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Its name, as `get pools` shows it.",
        autocompletion=live_names.of("pools"),
    ),
]
Replica = Annotated[
    str,
    typer.Argument(metavar="REPLICA", help="Its name.", autocompletion=live_names.of("replicas")),
]


@weights.command("get")
def get_weights(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="One; else all.")] = "",
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Show what each replica has of its model's slots, and what was set by hand."""

    async def work(plane: Client, screen: Screen) -> None:
        from ctl import overrides  # noqa: PLC0415

        fleet = await plane.fleet()
        pools = [model] if model else [pool.pool for pool in fleet.pools]
        table = overrides.weights(fleet, pools)
        found = [overrides.find(fleet, OverrideKind.WEIGHTS, pool) for pool in pools]
        screen.data(_page(screen, table, [one for one in found if one], output))

    _run(context, server, work)


@weights.command("set")
def set_weights(
    context: typer.Context,
    model: Model,
    parts: Annotated[list[str], typer.Argument(metavar="REPLICA=WEIGHT...")],
    for_: For = "1h",
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """Let replicas take load by these weights: the heaviest keeps its limit, the others a part."""

    async def work(plane: Client, screen: Screen) -> None:
        from ctl import overrides  # noqa: PLC0415

        members = overrides.pool_of(await plane.fleet(), model)
        shares = overrides.parse(parts, members)
        wanted = Override(OverrideKind.WEIGHTS, model, shares)
        care = Care(order(reason, if_revision), yes, dry_run)
        impact = overrides.impact(model, members, shares)
        undo = f"ctl weights reset {model}"
        await _set(plane, screen, wanted, for_, care, (impact, undo))

    _run(context, server, work)


@weights.command("reset")
def reset_weights(
    context: typer.Context,
    model: Model,
    reason: Reason = "",
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """End what was set: every replica has its own limit again."""
    _end(context, server, Override(OverrideKind.WEIGHTS, model), Care(order(reason, if_revision)))


@breaker.command("get")
def get_breaker(
    context: typer.Context,
    replica: Annotated[str, typer.Argument(metavar="[REPLICA]", help="One; else all.")] = "",
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Show each replica's breaker, why it is so, and who holds it."""

    async def work(plane: Client, screen: Screen) -> None:
        from ctl import overrides  # noqa: PLC0415
        from ctl.intents import find  # noqa: PLC0415

        fleet = await plane.fleet()
        chosen = [find(fleet, replica)] if replica else list(fleet.replicas)
        table = overrides.breakers(fleet, chosen)
        found = [overrides.held(fleet, one.route.replica) for one in chosen]
        screen.data(_page(screen, table, [one for one in found if one], output))

    _run(context, server, work)


@breaker.command("reset")
def reset_breaker(
    context: typer.Context,
    replica: Replica,
    reason: Reason = "",
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """Forget what is held against a replica, and end its hold; it is probed once it serves."""

    async def work(plane: Client, screen: Screen) -> None:
        from ctl.steer import Steer  # noqa: PLC0415

        done, was = await Steer(plane).reset_breaker(replica, order(reason, if_revision))
        screen.data(f"{replica}: breaker reset, was {was} (revision {done})\n")
        screen.talk(
            f"One that is out is probed, then ramps up. Watch: ctl get replica {replica} -w"
        )

    _run(context, server, work)


@breaker.command("hold-open")
def hold_open(
    context: typer.Context,
    replica: Replica,
    for_: For = "10m",
    reason: Reason = "",
    confirm: Annotated[
        str, typer.Option("--confirm", metavar="NAME", help="Yes, although it is the last.")
    ] = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """Keep a replica out, as if ejected; it comes back by a probe and a ramp."""
    care = Care(order(reason, if_revision), yes, dry_run, confirm)
    _hold(context, server, Override(OverrideKind.HOLD_OPEN, replica), for_, care)


@breaker.command("hold-closed")
def hold_closed(
    context: typer.Context,
    replica: Replica,
    for_: For = "10m",
    reason: Reason = "",
    dry_run: DryRun = False,
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """Do not eject a replica for failures that edges count; a dead or hung engine is still out."""
    care = Care(order(reason, if_revision), yes=True, dry_run=dry_run)
    _hold(context, server, Override(OverrideKind.HOLD_CLOSED, replica), for_, care)


def probe(
    context: typer.Context,
    replica: Replica,
    timeout: Annotated[str, typer.Option("--timeout", help="Give up after: 5s, 30s.")] = "30s",
    server: Server = "",
) -> None:
    """Have a replica's agent ask its engine for a token, now, past the edges; exit 1: none came."""

    async def work(plane: Client, screen: Screen) -> Exit:
        from ctl.columns import seconds, text  # noqa: PLC0415
        from ctl.steer import Steer  # noqa: PLC0415

        found = await Steer(plane).probe(replica, milliseconds(timeout, "--timeout"))
        took, by = seconds(found.duration_ms / 1000), f"asked by its agent on {text(found.node)}"
        if found.ok:
            screen.data(f"{replica}: a token came in {took} ({by})\n")
            return Exit.OK
        screen.data(f"{replica}: no token in {took} ({by}): {text(found.detail)}\n")
        return Exit.FAILED

    _run(context, server, work)


def pause(
    context: typer.Context,
    for_: For = "1h",
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """Freeze what edges' counts decide: nobody is ejected for them, and limits stand still.

    The fleet serves on; what an agent says of its engine (dead, hung, restarted) acts as always.
    """
    care = Care(order(reason, if_revision), yes, dry_run)
    impact = "Impact: a replica that fails its requests stays in use; dead and hung ones do not"

    async def work(plane: Client, screen: Screen) -> None:
        wanted = Override(OverrideKind.PAUSE)
        await _set(plane, screen, wanted, for_, care, (impact, "ctl resume"))

    _run(context, server, work)


def resume(
    context: typer.Context,
    reason: Reason = "",
    if_revision: IfRevision = None,
    server: Server = "",
) -> None:
    """End a pause."""
    _end(context, server, Override(OverrideKind.PAUSE), Care(order(reason, if_revision)))


def _hold(context: typer.Context, server: str, wanted: Override, for_: str, care: Care) -> None:
    async def work(plane: Client, screen: Screen) -> None:
        from ctl.intents import find, impacts  # noqa: PLC0415

        fleet = await plane.fleet()
        replica = find(fleet, wanted.target)
        impact, undo = "Impact: its failures alone take it out no more", "ctl breaker reset"
        found = impacts(fleet, [replica]) if wanted.kind is OverrideKind.HOLD_OPEN else []
        if found:
            impact = f"Impact: {found[0].line()}"
        last = found[0] if found and found[0].leaves_nobody else None
        said = (impact, f"{undo} {wanted.target}")
        again = f"ctl breaker hold-open {wanted.target}" if last else ""
        await _set(plane, screen, wanted, for_, care, said, again)

    _run(context, server, work)


async def _set(
    plane: Client,
    screen: Screen,
    wanted: Override,
    for_: str,
    care: Care,
    said: tuple[str, str],
    outage: str = "",
) -> None:
    """Set it, if that is allowed; `outage` is the command that takes somebody's last replica."""
    from ctl import overrides  # noqa: PLC0415
    from ctl.steer import Steer  # noqa: PLC0415

    for_ms, (impact, undo) = milliseconds(for_, "--for"), said
    if outage:
        allowed = care.allows_outage(screen, wanted.target, f"{impact}; nobody is left", outage)
    else:
        allowed = care.allows(screen, impact)
    if allowed:
        given = replace(care.order, outage_ok=bool(outage))
        revision = await Steer(plane).set_override(wanted, for_ms, given)
        name = wanted.target or "automation"
        screen.data(f"{name}: {overrides.words(wanted)} for {for_} (revision {revision})\n")
        screen.talk(f"Undo: {undo}")


def _end(context: typer.Context, server: str, wanted: Override, care: Care) -> None:
    async def work(plane: Client, screen: Screen) -> None:
        from ctl.steer import Steer  # noqa: PLC0415

        revision = await Steer(plane).set_override(wanted, 0, care.order)
        name = wanted.target or "automation"
        if revision:
            screen.data(f"{name}: automatic again (revision {revision})\n")
        else:
            screen.talk(f"{name}: nothing was set; it is automatic")

    _run(context, server, work)


def _page(screen: Screen, table: Table, found: list[Override], form: Format) -> str:
    from ctl import render  # noqa: PLC0415

    if form.is_table:
        return screen.table(table)
    items = [render.item(one) for one in found]
    return render.listed("Override", items, [one.target for one in found], form)


def _run(
    context: typer.Context, server: str, work: Callable[[Client, Screen], Awaitable[Exit | None]]
) -> None:
    from ctl import client  # noqa: PLC0415  grpc is slow to import

    async def connected(plane: client.Client) -> Exit:
        return await work(plane, Screen()) or Exit.OK

    raise typer.Exit(client.run(target(context, server), connected))

"""`ctl context`: the fleets that you work with, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import asdict, replace

from ctl import contexts
from ctl.contexts import Context
from ctl.exits import Exit
from ctl.options import TLS_DIR, Format, Output
from ctl.screen import Screen

if TYPE_CHECKING:
    from ctl.client import Client

context = typer.Typer(
    name="context", help="Name fleets, and choose one.", no_args_is_help=True, rich_markup_mode=None
)


def _names() -> list[str]:
    return [one.name for one in contexts.load().contexts]


Name = Annotated[str, typer.Argument(help="Its name.", autocompletion=_names)]


@context.command("list")
def list_(output: Output = Format.TABLE) -> None:
    """Show them; the star marks the one that is meant when nothing else is said."""
    from ctl.pages import Page  # noqa: PLC0415
    from ctl.render import Table  # noqa: PLC0415

    known, screen = contexts.load(), Screen()
    rows = [
        ("*" if one.name == known.current else "", one.name, one.server, one.tls_dir or "-")
        for one in known.contexts
    ]
    items = tuple({**asdict(one), "current": one.name == known.current} for one in known.contexts)
    table = Table(("", "NAME", "SERVER", "TLS"), tuple(rows))
    page = Page("Context", items, tuple(one.name for one in known.contexts), table)
    if rows or not output.is_table:
        screen.data(page.text(screen, output))
    else:
        screen.talk(f"{contexts.path()} names none: this machine is meant. See: ctl context add")


@context.command()
def use(name: Name) -> None:
    """Mean this one from now on."""
    known = contexts.load()
    found = known.find(name)
    contexts.save(replace(known, current=found.name))
    Screen().data(f"{found.name} ({found.server}) is meant from now on\n")


@context.command()
def add(
    name: Annotated[str, typer.Argument(help="Its name; one that is there is replaced.")],
    server: Annotated[
        str, typer.Option("--server", "-s", help="Control planes, as everywhere: a,b,c.")
    ],
    tls_dir: Annotated[str, typer.Option(help="Certificate of an admin.")] = "",
    make_current: Annotated[bool, typer.Option("--use", help="Mean it from now on.")] = False,
) -> None:
    """Give a fleet a name."""
    known = contexts.load()
    others = tuple(one for one in known.contexts if one.name != name)
    current = name if make_current or not others else known.current
    contexts.save(contexts.Contexts(current, (*others, Context(name, server, tls_dir))))
    meant = "" if current == name else f"   Mean it: ctl context use {name}"
    Screen().data(f"{name} is {server}{meant}\n")


@context.command("test")
def ask(
    name: Annotated[
        str, typer.Argument(help="By default the one that is meant.", show_default=False)
    ] = "",
) -> None:
    """Ask whether the control plane of a context answers, and who leads there."""
    import os  # noqa: PLC0415

    from ctl import client  # noqa: PLC0415  grpc is slow to import
    from trimtab.runtime import clock  # noqa: PLC0415

    found = contexts.load().find(name) if name else contexts.chosen()
    if found is not None and found.tls_dir:
        os.environ[TLS_DIR] = found.tls_dir
    server = found.server if found else client.default_target()

    async def work(plane: Client) -> Exit:
        began_s = clock.now_s()
        fleet = await plane.fleet()
        took_ms = (clock.now_s() - began_s) * 1000
        leads = f"{fleet.leader} leads" if fleet.leader else "nobody leads"
        Screen().data(f"{server}: fleet {fleet.name}, {leads}, answered in {took_ms:.0f} ms\n")
        return Exit.OK

    raise typer.Exit(client.run(server, work))

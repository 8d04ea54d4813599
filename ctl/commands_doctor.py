"""`ctl doctor`: what is set up so that it will hurt one day."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl import live_names
from ctl.options import Format, Output, Server, target
from ctl.screen import Screen


def doctor(
    context: typer.Context,
    node: Annotated[
        str,
        typer.Option(
            help="Only about this node, and the engines on it.",
            autocompletion=live_names.of("agents"),
        ),
    ] = "",
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Look at how engines, nodes and processes are set up; exit 10 on a warning, 11 on worse."""
    from ctl import doctor as doctors  # noqa: PLC0415  grpc is slow to import

    screen = Screen()
    found = doctors.examine(target(context, server), node)
    screen.data(doctors.told(screen, found, output))
    raise typer.Exit(doctors.exit_code(found))

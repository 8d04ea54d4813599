"""`ctl version` and `ctl completion`: about the tool itself, and the fleet's versions."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from ctl.exits import Exit
from ctl.options import COMPLETE, Format, Output, Server, target
from ctl.screen import Screen

PROGRAMS = ("ctl", "trimtab-ctl")


class Shell(Enum):
    """Those that it completes in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def version(
    context: typer.Context,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="Of every part; exit 10 when they differ.")
    ] = False,
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Say which version this is, or which ones a fleet runs."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    screen = Screen()
    if not fleet:
        screen.data(f"ctl {installed('trimtab')}\n")
        return
    from ctl import client, versions  # noqa: PLC0415  grpc is slow to import

    async def work(plane: client.Client) -> Exit:
        parts = versions.parts(await plane.fleet(), installed("trimtab"))
        screen.data(versions.page(parts).text(screen, output))
        return Exit.DEGRADED if any(part.differs for part in parts) else Exit.OK

    raise typer.Exit(client.run(target(context, server), work))


def completion(
    shell: Annotated[Shell, typer.Argument(help='Its rc file wants: eval "$(ctl completion …)".')],
) -> None:
    """Print what makes a shell complete commands, options and names of replicas."""
    from typer._completion_shared import get_completion_script  # noqa: PLC0415

    scripts = [
        get_completion_script(prog_name=name, complete_var=COMPLETE, shell=shell.value)
        for name in PROGRAMS
    ]
    Screen().data("".join(f"{script}\n" for script in scripts))

"""`ctl`: the operator's tool. Here are only the commands' names.

Rules: importing this costs nothing that `--help` does not need: grpc and rich are imported inside
commands; what went wrong is said in sentences, and the exit code says it to scripts (ctl/exits).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.core import TyperGroup

from ctl import nouns
from ctl.commands_audit import audit
from ctl.commands_explain import events, explain
from ctl.commands_get import get
from ctl.commands_intent import cordon, drain, uncordon
from ctl.commands_node import node
from ctl.commands_snapshot import snapshot
from ctl.commands_status import status
from ctl.commands_steer import breaker, pause, probe, resume, weights
from ctl.exits import CtlError, Exit
from ctl.options import TLS_DIR


class Commands(TyperGroup):
    """Commands by verb; a noun in the verb's place gets the right order told."""

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> object:  # type: ignore[override]
        """Find the command that the words mean."""
        noun = nouns.find(args[0])
        if noun:
            ctx.fail(f"the verb comes first, like: ctl get {noun}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    help="See and steer a Trimtab fleet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help and errors: faster, and readable in any locale
)
COMMANDS = (status, get, explain, events, cordon, uncordon, drain, probe, pause, resume, audit)
for command in COMMANDS:
    app.command()(command)
app.command("why", hidden=True)(explain)
app.add_typer(node, name="node")
for group in (weights, breaker, snapshot):
    app.add_typer(group)


@app.callback()
def ctl(
    context: typer.Context,
    server: Annotated[
        str,
        typer.Option(
            "--server",
            "-s",
            envvar="TRIMTAB_SERVER",
            help="Control planes, unix:/path or host:port, with commas between them; "
            "by default this machine's socket.",
            show_default=False,
        ),
    ] = "",
    tls_dir: Annotated[
        str,
        typer.Option(
            "--tls-dir", envvar=TLS_DIR, help="Certificate of an admin, for a HOST:PORT with TLS."
        ),
    ] = "",
) -> None:
    """Remember which control plane is meant, and who asks."""
    context.obj = server
    if tls_dir:
        os.environ[TLS_DIR] = tls_dir


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        app(args=None if args is None else list(args), prog_name="ctl")
    except CtlError as error:
        print(f"ctl: {error}", file=sys.stderr)
        return error.code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.FAILED
    return Exit.OK

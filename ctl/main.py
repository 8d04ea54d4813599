"""`ctl`: the operator's tool. Here are only the commands' names.

Rules: a command's module is imported when it is the one that was asked for, grpc and rich inside of
it; what went wrong is said in sentences, and the exit code says it to scripts (ctl/exits).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from ctl import nouns
from ctl.exits import CtlError, Exit
from ctl.options import COMPLETE, CONTEXT, TLS_DIR

if TYPE_CHECKING:
    from typer._click import Command


class Commands(TyperGroup):
    """Commands by verb, each made when it is asked for; a noun in the verb's place is explained."""

    def list_commands(self, ctx: object) -> list[str]:
        """Those that are shown."""
        return [name for name in COMMANDS if name != "why"]

    def get_command(self, ctx: object, cmd_name: str) -> Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name].split(":")
        found = getattr(import_module(f"ctl.{module}"), attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(cmd_name)(found)
        return typer.main.get_command(alone)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> object:  # type: ignore[override]
        """Find the command that the words mean."""
        if args[0] not in COMMANDS:
            ctx.fail(meant(args[0], args[1:]))
        return super().resolve_command(ctx, args)


def meant(word: str, rest: list[str]) -> str:
    """What somebody may have meant by a word that is no command."""
    noun = nouns.find(word)
    if noun:
        verb, rest = (rest[0], rest[1:]) if rest and rest[0] in COMMANDS else ("get", rest)
        return f"the verb comes first: ctl {' '.join([verb, noun, *rest])}"
    near = nouns.closest(word, list(COMMANDS)) or " See: ctl --help"
    return f'there is no command "{word}".{near}'


COMMANDS = {
    "status": "commands_status:status",
    "top": "commands_describe:top",
    "get": "commands_get:get",
    "describe": "commands_describe:describe",
    "explain": "commands_explain:explain",
    "why": "commands_explain:explain",
    "events": "commands_explain:events",
    "cordon": "commands_intent:cordon",
    "uncordon": "commands_intent:uncordon",
    "drain": "commands_intent:drain",
    "doctor": "commands_doctor:doctor",
    "simulate": "commands_simulate:simulate",
    "weights": "commands_steer:weights",
    "breaker": "commands_steer:breaker",
    "probe": "commands_steer:probe",
    "pause": "commands_steer:pause",
    "resume": "commands_steer:resume",
    "audit": "commands_audit:audit",
    "config": "commands_config:config",
    "node": "commands_node:node",
    "snapshot": "commands_snapshot:snapshot",
    "context": "commands_context:context",
    "version": "commands_version:version",
    "completion": "commands_version:completion",
}
app = typer.Typer(
    cls=Commands,
    help="See and steer a Trimtab fleet.",
    no_args_is_help=True,
    add_completion=False,  # that is a command
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help and errors: faster, and readable in any locale
)


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
    name: Annotated[
        str,
        typer.Option("--context", envvar=CONTEXT, help="Mean this one of `ctl context list`."),
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
    if name:
        os.environ[CONTEXT] = name
    if tls_dir:
        os.environ[TLS_DIR] = tls_dir


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    if COMPLETE in os.environ:
        from typer._completion_classes import completion_init  # noqa: PLC0415

        completion_init()
    try:
        app(args=None if args is None else list(args), prog_name="ctl")
    except CtlError as error:
        print(f"ctl: {error}", file=sys.stderr)
        return error.code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.FAILED
    return Exit.OK

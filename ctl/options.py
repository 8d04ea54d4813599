"""Options that every command takes, and which control plane they add up to."""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated

import typer

from ctl.exits import CtlError, Exit

COMPLETE = "_CTL_COMPLETE"
"""The variable by which a shell asks for completions; typer makes its name of ours."""
CONTEXT = "TRIMTAB_CONTEXT"
"""The variable that says which context is meant; `--context` sets it."""
TLS_DIR = "TRIMTAB_TLS_DIR"
"""The variable that says who asks; `--tls-dir` sets it."""


class Format(Enum):
    """How `get` and `node` print."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JSONL = "jsonl"
    CSV = "csv"
    NAME = "name"

    @property
    def is_table(self) -> bool:
        """Whether people are to read it."""
        return self in (Format.TABLE, Format.WIDE)


Output = Annotated[Format, typer.Option("--output", "-o")]
Server = Annotated[
    str,
    typer.Option(
        "--server",
        "-s",
        help="Control planes, unix:/path or host:port, with commas between them; "
        "may also stand before the command.",
        show_default=False,
    ),
]


def allow(output: Format, *forms: Format) -> None:
    """Refuse the forms that a command does not print."""
    if output not in forms:
        known = ", ".join(form.value for form in forms)
        raise CtlError(Exit.USAGE, f"--output here is one of {known}, not {output.value}")


def target(context: typer.Context, server: str) -> str:
    """The command's --server, ctl's own or $TRIMTAB_SERVER, a context's, this machine's."""
    if named := server or str(context.obj or ""):
        return named
    from ctl import contexts  # noqa: PLC0415  here as below: only who needs it pays
    from ctl.client import default_target  # noqa: PLC0415  grpc is slow to import

    if (chosen := contexts.chosen()) is not None:
        named = chosen.server
        if chosen.tls_dir:
            os.environ.setdefault(TLS_DIR, chosen.tls_dir)
    return named or default_target()

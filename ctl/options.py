"""Options that every command takes, and which control plane they add up to."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

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


def target(context: typer.Context, server: str) -> str:
    """The command's --server, else ctl's own or $TRIMTAB_SERVER, else this machine's."""
    from ctl.client import default_target  # noqa: PLC0415  grpc is slow to import

    return server or str(context.obj or "") or default_target()

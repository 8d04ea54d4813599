"""Names of what is there, for the shell's completion.

Rule: a completion never fails and never keeps anybody waiting: no answer is no names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import typer

from ctl import nouns
from ctl.exits import CtlError

LIMIT_S = 1.0
Complete = Callable[[typer.Context, str], list[str]]


def of(noun: str) -> Complete:
    """Of one kind, or of that which the word before says when the noun is empty."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        kind = nouns.find(noun or str(context.params.get("noun") or ""))
        try:
            names = asyncio.run(_names(context, kind)) if kind else []
        except (CtlError, TimeoutError, OSError):
            return []
        return [name for name in names if name.startswith(incomplete)]

    return complete


async def _names(context: typer.Context, kind: str) -> list[str]:
    from ctl import client, columns  # noqa: PLC0415  grpc is slow to import
    from ctl.options import target  # noqa: PLC0415

    said = context.params.get("server") or context.find_root().params.get("server")
    plane = client.Client(target(context, str(said or "")), client.identity())
    async with asyncio.timeout(LIMIT_S):
        return columns.names(columns.VIEWS[kind], await plane.fleet())

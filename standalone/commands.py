"""The commands beside `trimtab up`: those that run once and end."""

from __future__ import annotations

import typer

from standalone.imports import imports
from standalone.init import init
from standalone.join import join


def add(app: typer.Typer) -> None:
    """Make them known."""
    app.command()(init)
    app.command()(join)
    app.add_typer(imports)

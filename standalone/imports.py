"""`trimtab import litellm FILE`: LiteLLM's configuration as ours, and what is not carried over.

Rules: the new configuration goes to --output, and there alone what was there is kept; without it to
stdout, and nothing is written. The account, a line for each thing, goes to stderr.
"""

from __future__ import annotations

import os
import pathlib
import socket
import sys
import textwrap
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from standalone import config_text, litellm, litellm_front, litellm_keys
from standalone.config import default_state_dir
from standalone.init import placed
from trimtab.runtime import config as file
from trimtab.runtime import service

imports = typer.Typer(
    name="import",
    help="Make a configuration from another gateway's.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


_NO_KEYS = (
    "look: there are none, so nobody may call (`trimtab up` makes one): give a name and the hash "
    "of the key that clients have, like LITELLM_MASTER_KEY, or bring LiteLLM's own by --keys"
)


@imports.callback()
def _group() -> None:
    """Keep `litellm` a command of its own."""


@imports.command(name="litellm")
def import_litellm(
    path: Annotated[pathlib.Path, typer.Argument(metavar="FILE", help="LiteLLM's config.yaml.")],
    keys: Annotated[
        pathlib.Path | None,
        typer.Option(help="Its virtual keys, as CSV: docs/coming-from-litellm.md has the query."),
    ] = None,
    output: Annotated[
        pathlib.Path | None,
        typer.Option("--output", "-o", help="Write it here; without it nothing is written."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
    in_front: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Make LiteLLM's own file instead, with the endpoint at URL as its one deployment.",
        ),
    ] = "",
) -> None:
    """Turn LiteLLM's configuration into one of ours; say what each thing became, or why not."""
    try:
        found = litellm.document(file.text_of(path), str(path))
        state_dir = None if os.geteuid() == 0 else default_state_dir(os.environ)
        made = litellm.carry(found, placed(socket.gethostname(), state_dir))
        text, lines = _front(found, made, in_front) if in_front else _ours(path, made, keys)
        if output:
            config_text.save(output, text, force)
    except service.ConfigError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(service.EXIT_CONFIG) from None
    for line in table(lines):
        print(line, file=sys.stderr)
    if not output:
        sys.stdout.write(text)


def _front(
    found: dict[str, Any], made: litellm.Carried, url: str
) -> tuple[str, list[tuple[str, str]]]:
    return litellm_front.trimmed(found, made.config.pools, url), []


def _ours(
    path: pathlib.Path, made: litellm.Carried, keys: pathlib.Path | None
) -> tuple[str, list[tuple[str, str]]]:
    known, lines = litellm_keys.read(keys, made.config.keys) if keys else ((), [])
    config = replace(made.config, keys=(*made.config.keys, *known))
    if not config.keys:
        lines.append(("keys", _NO_KEYS))
    return config_text.text(config, _heading(path)), [*made.lines, *lines]


def table(lines: list[tuple[str, str]]) -> list[str]:
    """What was in the file, and below it what became of it."""
    same: dict[str, list[str]] = {}
    for what, words in lines:
        same.setdefault(words, []).append(what)
    return [
        line
        for words, what in same.items()
        for line in (
            ", ".join(what),
            *textwrap.indent(textwrap.fill(words, 92), "    ").splitlines(),
        )
    ]


def _heading(path: pathlib.Path) -> str:
    return (
        f"Trimtab's configuration, made from LiteLLM's {path.name} by `trimtab import litellm`. "
        "Every setting is here: take away the # of one to set it. `trimtab-ctl config validate` "
        "finds mistakes."
    )

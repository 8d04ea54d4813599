"""A configuration file looked at without anybody to run it: mistakes, and what looks like one.

Rules: an error is what some process would refuse to start with, or the leader to apply; a warning
is what all of them take and people rarely mean. All are told at once, with line and column.
"""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import yaml

from trimtab.runtime import config
from trimtab.runtime.config import Config, Engine, Key, Secret
from trimtab.runtime.yaml_source import Built, Problem, Reader

WARNING = "warn"


def check(path: pathlib.Path) -> tuple[Config | None, list[Problem]]:
    """The file if it may be used, and what there is to say; raises ConfigError: unreadable."""
    value, reader = config.read(config.text_of(path))
    problems = list(reader.problems)
    problems += _warnings(reader)
    return value, sorted(problems)


def _warnings(reader: Reader) -> Iterator[Problem]:
    """Of what could be read; what could not is an error already."""
    built = next((one for one in reader.built if isinstance(one.value, Config)), None)
    if built is None or not isinstance(built.value, Config):
        return
    value = built.value
    if "keys" not in built.nodes:
        yield _at(built, "keys", "there are none: nobody may call")
    if value.listen == value.admin:
        text = f"clients and /metrics are both at {value.listen}: see admin"
        yield _at(built, "listen", text)
    called: dict[str, str] = {}
    for part in reader.built:
        if isinstance(part.value, Engine):
            yield from _engine(part.value, part, _node(value), called)
        else:
            yield from _part(part, value)


def _part(built: Built, value: Config) -> Iterator[Problem]:
    match built.value:
        case Key(models=models) if models:
            known = {name for pool in value.pools for name in (pool.name, *pool.aliases)}
            for name in sorted({*models} - known):
                text = f'"{name}" is no pool or alias of this file: an adapter, or a typo?'
                yield _at(built, "models", text)
        case Secret() as secret:
            yield from _secret(secret, built)
        case _:
            pass


def _engine(engine: Engine, built: Built, node: str, called: dict[str, str]) -> Iterator[Problem]:
    name = engine.name or f"{node}-{urlsplit(engine.url).port}"
    if name in called:
        text = f"an agent on {node} would call this {name}, and {called[name]} too: give them names"
        yield _at(built, "url", text)
    called[name] = engine.url


def _secret(secret: Secret, built: Built) -> Iterator[Problem]:
    if secret.env and not os.environ.get(secret.env):
        yield _at(built, "env", f"the environment variable {secret.env} is not set here")
    if secret.file and not pathlib.Path(secret.file).exists():
        yield _at(built, "file", f"{secret.file} is not there, on this machine")


def _node(value: Config) -> str:
    return value.node or socket.gethostname()


def _at(built: Built, name: str, text: str) -> Problem:
    node: yaml.Node = built.nodes.get(name, built.node)
    mark, path = node.start_mark, f"{built.path}.{name}".lstrip(".")
    return Problem(mark.line + 1, mark.column + 1, path, text, severity=WARNING)

"""What there is to say of each setting, for docs/configuration.md and for `trimtab init`.

Rule: the words are the comment below the setting in trimtab/runtime/config.py, its type and its
default; there is no second text to keep in step.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import types
import typing
from dataclasses import dataclass

import msgspec

from trimtab.runtime import config, live_config

# They stand only below settings that need a restart; RESTARTS says whose.
PARTS_OF_A_RESTART = (
    config.Fallback,
    config.Etcd,
    config.Remediation,
    config.Certificate,
    config.Tls,
    config.Otlp,
)
_PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the file."""

    name: str
    hint: object
    meaning: str
    change: str
    """How another value comes into effect."""
    required: bool
    default: object


def settings(struct: type[msgspec.Struct]) -> list[Setting]:
    """The keys of a part of the file, in their order."""
    hints, comments = typing.get_type_hints(struct, include_extras=True), _comments(struct)
    return [
        Setting(
            name=field.name,
            hint=hints[field.name],
            meaning=comments[field.name],
            change=_change(struct, field.name),
            required=field.required,
            default=None if field.required else field.default,
        )
        for field in msgspec.structs.fields(struct)
    ]


def part_of(hint: object) -> type[msgspec.Struct] | None:
    """The part of the file that a setting holds, once or as a list; None: a plain value."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    if typing.get_origin(hint) in {typing.Annotated, typing.Literal}:
        return None
    return next(filter(None, map(part_of, typing.get_args(hint))), None)


def is_list(hint: object) -> bool:
    """Whether a setting holds a list."""
    return tuple in {typing.get_origin(hint), *map(typing.get_origin, typing.get_args(hint))}


def kind(hint: object, part: str = "{0}") -> str:
    """A type for people; `part` shows a part of the file: {0} its name, {1} in lower case."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return " or ".join(kind(item, part) for item in arguments if item is not types.NoneType)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{word}`" for word in arguments)
    if typing.get_origin(hint) is tuple:
        return f"list of {kind(arguments[0], part)}"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return part.format(hint.__name__, hint.__name__.lower())
    if typing.get_origin(hint) is typing.Annotated:
        return _constrained(arguments[0], arguments[1])
    return _PLAIN[typing.cast("type", hint)]


def _comments(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The text below each attribute of a class."""
    body = typing.cast("ast.ClassDef", ast.parse(inspect.getsource(struct)).body[0]).body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _constrained(base: type, meta: msgspec.Meta) -> str:
    """A type with its limits."""
    limits = {"≥": meta.ge, ">": meta.gt, "≤": meta.le}
    words = [f"{sign} {limit:,}" for sign, limit in limits.items() if limit is not None]
    return " ".join([meta.title or _PLAIN[base], ", ".join(words)]).strip()


def _change(struct: type[msgspec.Struct], name: str) -> str:
    if struct in PARTS_OF_A_RESTART:
        return "restart"
    if struct is config.AccessLog:
        return f"restart: {live_config.EDGES_RELOAD}"
    if struct is config.Secret:
        return "as what it is for"
    who = live_config.RESTARTS.get(struct, {}).get(name)
    return f"restart: {who}" if who else "live"

"""Reads YAML (and so JSON) into msgspec structs, and says where each mistake is.

Rules: all mistakes of a file come out at once, each with line and column; a part that is wrong is
left out, so that the rest is still checked; the walk follows the schema, and aliases are refused,
so that a small file can't unfold into a large one. A leaf may name a check of its own:
`Annotated[str, msgspec.Meta(extra={"check": f})]`, where f returns a problem or "".
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import yaml

Check = Callable[[str], str]
Unique = Mapping[type[msgspec.Struct], Mapping[str, str]]  # struct -> field -> what it names
_WRONG = object()
_TIME = "tag:yaml.org,2002:timestamp"
_KINDS: dict[type[yaml.Node], str] = {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list"}
_WORDS = {"`array`": "a list", "`object`": "a mapping", "`null`": "nothing", "`": ""}


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake, at a place (both counted from 1)."""

    line: int
    column: int
    path: str
    text: str
    allowed: tuple[str, ...] = ()
    severity: str = "error"

    def render(self, file: str, width: int = 0) -> str:
        """The line that a person reads; `width` aligns several."""
        where = f"{file}:{self.line}:{self.column}".ljust(width)
        path = f"{self.path}: " if self.path else ""
        allowed = f"   allowed: {', '.join(self.allowed)}" if self.allowed else ""
        return f"{where}  {self.severity:<5}  {path}{self.text}{allowed}"


@dataclass(frozen=True, slots=True)
class Built:
    """A struct that was read, with the nodes of its fields, for checks across structs."""

    value: msgspec.Struct
    path: str
    nodes: dict[str, yaml.Node]
    node: yaml.Node


@dataclass(slots=True)
class Reader:
    """Collects problems and structs while it walks one document."""

    problems: list[Problem] = field(default_factory=list)
    built: list[Built] = field(default_factory=list)

    def report(self, node: yaml.Node, path: str, text: str, allowed: tuple[str, ...] = ()) -> None:
        """Note a mistake at a node."""
        mark = node.start_mark
        self.problems.append(Problem(mark.line + 1, mark.column + 1, path, text, allowed))

    def read(self, node: yaml.Node, hint: object, path: str) -> object:
        """The value of a node by its type hint, or _WRONG."""
        hint = _without_none(hint)
        struct = _struct_of(hint)
        if struct is not None:
            return self._struct(node, struct, path)
        if typing.get_origin(hint) is tuple and isinstance(node, yaml.SequenceNode):
            item = typing.get_args(hint)[0]
            values = [self.read(n, item, f"{path}[{i}]") for i, n in enumerate(node.value)]
            return tuple(value for value in values if value is not _WRONG)
        return self._leaf(node, hint, path)

    def unique(self, table: Unique) -> None:
        """Report texts that are used twice where the table says that they name one thing."""
        first: dict[tuple[str, str], int] = {}
        for item in self.built:
            for name, kind in table.get(type(item.value), {}).items():
                for leaf in _leaves(item.nodes.get(name)):
                    claim = (kind, leaf.value.rstrip("/"))
                    if claim in first:
                        text = f"this {kind} is taken already, on line {first[claim]}"
                        self.report(leaf, _join(item.path, name), text)
                    first.setdefault(claim, leaf.start_mark.line + 1)

    def _struct(self, node: yaml.Node, struct: type[msgspec.Struct], path: str) -> object:
        if not isinstance(node, yaml.MappingNode):
            self.report(node, path, f"expected a mapping, got {_kind(node)}", _names(struct))
            return _WRONG
        nodes = self._fields(node, struct, path)
        hints = typing.get_type_hints(struct, include_extras=True)
        values = {name: self.read(n, hints[name], _join(path, name)) for name, n in nodes.items()}
        missing = [f.name for f in msgspec.structs.fields(struct) if f.required]
        missing = [name for name in missing if name not in nodes]
        for name in missing:
            self.report(node, _join(path, name), "missing")
        whole = not missing and _WRONG not in values.values()
        if not whole and path:
            return _WRONG
        return self._build(node, struct, path, nodes, values)

    def _build(
        self,
        node: yaml.Node,
        struct: type[msgspec.Struct],
        path: str,
        nodes: dict[str, yaml.Node],
        values: dict[str, object],
    ) -> object:
        try:
            value = struct(**{name: v for name, v in values.items() if v is not _WRONG})
        except ValueError as error:
            self.report(node, path, str(error))
            return _WRONG
        self.built.append(Built(value, path, nodes, node))
        return value

    def _fields(
        self, node: yaml.MappingNode, struct: type[msgspec.Struct], path: str
    ) -> dict[str, yaml.Node]:
        nodes: dict[str, yaml.Node] = {}
        allowed = _names(struct)
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else _kind(key)
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, n=1)
                hint = f' (did you mean "{near[0]}"?)' if near else ""
                self.report(key, _join(path, name), f"unknown key{hint}", allowed)
            elif name in nodes:
                line = nodes[name].start_mark.line + 1
                self.report(key, _join(path, name), f"given twice, first on line {line}")
            else:
                nodes[name] = value
        return nodes

    def _leaf(self, node: yaml.Node, hint: object, path: str) -> object:
        if not isinstance(node, yaml.ScalarNode):
            self.report(node, path, f"expected {_wanted(hint)}, got {_kind(node)}")
            return _WRONG
        if typing.get_origin(hint) is Literal:
            words = typing.get_args(hint)  # as written: YAML takes some for something else
            if node.value in words:
                return node.value
            self.report(node, path, f"not one of its words: {node.value}", words)
            return _WRONG
        try:
            is_time = node.tag == _TIME  # stays the text that it is, quoted or not
            value = node.value if is_time else yaml.SafeLoader("").construct_object(node)
            read: object = msgspec.convert(value, hint)
        except (msgspec.ValidationError, yaml.YAMLError, ValueError) as error:
            self.report(node, path, _plain(error, node))
            return _WRONG
        for text in _complaints(hint, read):
            self.report(node, path, text)
            return _WRONG
        return read


def compose(text: str) -> yaml.Node | Problem | None:
    """The document's node tree; None when the file is empty."""
    try:
        return _NoAliasLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "not YAML"
        return (
            Problem(mark.line + 1, mark.column + 1, "", what) if mark else Problem(1, 1, "", what)
        )
    except yaml.YAMLError as error:
        return Problem(1, 1, "", " ".join(str(error).split()))
    except RecursionError:
        return Problem(1, 1, "", "nested too deeply")


class _NoAliasLoader(yaml.SafeLoader):
    """The safe loader without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "aliases are refused: write it out", mark)
        return super().compose_node(parent, index)


def _without_none(hint: object) -> object:
    """T of `T | None`: a null in the file is an error, leaving the key out is how to say none."""
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return hint


def _struct_of(hint: object) -> type[msgspec.Struct] | None:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return None


def _complaints(hint: object, value: object) -> Iterator[str]:
    for meta in getattr(hint, "__metadata__", ()):
        check: Check | None = (meta.extra or {}).get("check")
        if check is not None and (text := check(str(value))):
            yield text


def _leaves(node: yaml.Node | None) -> list[yaml.ScalarNode]:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return [leaf for leaf in nodes if isinstance(leaf, yaml.ScalarNode)]


def _names(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(f.name for f in msgspec.structs.fields(struct))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _kind(node: yaml.Node) -> str:
    return _KINDS.get(type(node), "a plain value")


def _wanted(hint: object) -> str:
    if typing.get_origin(hint) is tuple:
        return "a list"
    base = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    return getattr(base, "__name__", "a value")


def _plain(error: Exception, node: yaml.ScalarNode) -> str:
    """msgspec's sentence in people's words; a wrong number is repeated, a wrong text is not."""
    text = str(error).splitlines()[0].replace("Expected", "expected")
    for word, plain in _WORDS.items():
        text = text.replace(word, plain)
    if "got" not in text:
        text += f", got {node.value}"
    if text.startswith("expected str, got") and "nothing" not in text:
        text += ": put it in quotes"
    return text

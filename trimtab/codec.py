"""Model values to wire messages and back: the only file that knows both.

Rule: a model class and its message have the same name and the same field names, so one table made
from the two converts everything. Optional fields are None when absent; enums keep their numbers,
and one that is unknown here (a newer peer's) reads as UNSPECIFIED; numbers that are not finite are
refused, except +Inf as a bucket's bound. Errors: WireError says what, where, and what is allowed.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

from google.protobuf.message import Message

from trimtab import model, views
from trimtab.v1 import admin_pb2, agent_pb2, edge_pb2, types_pb2

T = TypeVar("T")
Convert = Callable[[Any], Any]
UNBOUNDED_FIELDS = frozenset({"le_s"})  # +Inf is the last bucket's honest bound


class WireError(ValueError):
    """A message that a peer should not have sent."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    optional: bool
    repeated: bool
    encode: Convert
    decode: Convert

    @property
    def is_plain(self) -> bool:
        """Whether its values are the same on the wire."""
        return self.decode is _same


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    message: type[Message]
    fields: tuple[_Field, ...]
    read: Callable[[Message], tuple[Any, ...]]
    """All fields at once, as they are on the wire."""
    converted: tuple[tuple[int, _Field], ...]
    """Those that are not simply taken over, by their place."""
    make: Callable[..., Any]


def encode(value: object) -> Any:
    """The wire message of a model value. O(fields)."""
    plan = _PLANS[type(value)]
    arguments: dict[str, Any] = {}
    for field in plan.fields:
        item = getattr(value, field.name)
        if field.repeated:
            arguments[field.name] = [field.encode(part) for part in item]
        elif item is not None:
            arguments[field.name] = field.encode(item)
    return plan.message(**arguments)


def decode(message: Message, cls: type[T]) -> T:
    """The model value of a wire message; raises WireError on values no peer should send."""
    plan = _PLANS[cls]
    values = list(plan.read(message))
    for place, field in plan.converted:
        value = values[place]
        try:
            if field.repeated:
                values[place] = tuple([field.decode(part) for part in value]) if value else ()
            elif field.optional and not message.HasField(field.name):
                values[place] = None
            else:
                values[place] = field.decode(value)
        except WireError as error:
            raise WireError(f"{cls.__name__}.{field.name}: {error}") from None
    return typing.cast(T, plan.make(*values))


def encode_body(envelope: type[T], value: object, **header: int) -> T:
    """An envelope message whose oneof `body` holds the value."""
    name = _BODY_FIELDS[envelope][type(value).__name__]
    return envelope(**header, **{name: encode(value)})


def decode_body(envelope: Message) -> Any | None:
    """The value in an envelope's oneof `body`; None when it is empty or a newer peer's."""
    which = envelope.WhichOneof("body")
    if which is None:
        return None
    body = getattr(envelope, which)
    return decode(body, getattr(model, type(body).__name__))


class Parts:
    """Bytes of what many edges are told alike: the very same snapshots and credits."""

    def __init__(self) -> None:
        self._held: list[object] = []  # so that no other value gets the id of one of these
        self._known: dict[int, bytes] = {}

    def snapshot(self, body: model.Snapshot) -> bytes:
        """All of it."""
        if id(body) not in self._known:
            self._add(body, encode(body))
        return self._known[id(body)]

    def credits(self, body: model.Credits) -> bytes:
        """Each credit from what is known, and what is the edge's own."""
        known = self._known
        for credit in body.credits:
            if id(credit) not in known:
                self._add(credit, edge_pb2.Credits(credits=[encode(credit)]))
        own = encode(model.Credits(paces=body.paces)).SerializeToString()
        return b"".join([*map(known.__getitem__, map(id, body.credits)), own])

    def _add(self, value: object, message: Message) -> None:
        self._held.append(value)
        self._known[id(value)] = message.SerializeToString()


def encode_update(update: model.EdgeUpdate, parts: Parts | None = None) -> edge_pb2.EdgeUpdate:
    """A push on the wire; `parts` holds what it shares with others."""
    header = {"term": update.term, "version": update.version, "nonce": update.nonce}
    if parts is None or isinstance(update.body, model.Delta):
        return encode_body(edge_pb2.EdgeUpdate, update.body, **header)
    message = edge_pb2.EdgeUpdate(term=update.term, version=update.version, nonce=update.nonce)
    if isinstance(update.body, model.Snapshot):
        message.snapshot.ParseFromString(parts.snapshot(update.body))
        message.snapshot.SetInParent()
    else:
        message.credits.ParseFromString(parts.credits(update.body))
        message.credits.SetInParent()
    return message


def decode_update(message: edge_pb2.EdgeUpdate) -> model.EdgeUpdate:
    """A push off the wire; raises WireError when it has no body that we know."""
    body = decode_body(message)
    if body is None:
        raise WireError("EdgeUpdate.body: empty or of a newer kind; snapshot, delta or credits")
    return model.EdgeUpdate(message.term, message.version, message.nonce, body)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise WireError(f"{value} is not a finite number")
    return value


def _bound(value: float) -> float:
    if math.isnan(value) or value == -math.inf:
        raise WireError(f"{value} is not a bucket's bound")
    return value


def _same(value: Any) -> Any:
    return value


def _enum_reader(cls: type[IntEnum]) -> Convert:
    members = {member.value: member for member in cls}
    unspecified = members[0]
    return lambda number: members.get(number, unspecified)


def _converters(kind: Any, name: str) -> tuple[Convert, Convert]:
    if dataclasses.is_dataclass(kind):
        return encode, lambda message: decode(message, typing.cast(type, kind))
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return int, _enum_reader(kind)
    if kind is float:
        return _same, _bound if name in UNBOUNDED_FIELDS else _finite
    return _same, _same


def _field(name: str, hint: Any) -> _Field:
    optional = isinstance(hint, types.UnionType)
    repeated = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if optional or repeated else hint
    return _Field(name, optional, repeated, *_converters(kind, name))


def _plan(cls: type, message: type[Message]) -> _Plan:
    hints = typing.get_type_hints(cls)
    fields = tuple(_field(f.name, hints[f.name]) for f in dataclasses.fields(cls))
    converted = [(i, f) for i, f in enumerate(fields) if f.repeated or f.optional or not f.is_plain]
    return _Plan(message, fields, _reader([f.name for f in fields]), tuple(converted), _maker(cls))


def _maker(cls: type) -> Callable[..., Any]:
    """The class's constructor, three times as fast: what is frozen is set field by field, slowly.

    So a twin with the same slots that is not frozen is made, and becomes one of them.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    twin = dataclasses.make_dataclass(cls.__name__, names, slots=True)

    def make(*values: object) -> Any:
        made = twin(*values)
        made.__class__ = cls
        return made

    return make


def _reader(names: list[str]) -> Callable[[Message], tuple[Any, ...]]:
    read = operator.attrgetter(*names)
    return read if len(names) > 1 else lambda message: (read(message),)


def _message_classes() -> dict[str, type[Message]]:
    modules = (types_pb2, agent_pb2, edge_pb2, admin_pb2)
    return {
        name: getattr(module, name)
        for module in modules
        for name in module.DESCRIPTOR.message_types_by_name
    }


_MESSAGES = _message_classes()
_PLANS: dict[type, _Plan] = {
    cls: _plan(cls, _MESSAGES[name])
    for name, cls in (vars(model) | vars(views)).items()
    if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls is not model.EdgeUpdate
}


def _body_fields(envelope: type[Message]) -> dict[str, str]:
    fields = envelope.DESCRIPTOR.oneofs_by_name["body"].fields
    return {f.message_type.name: f.name for f in fields if f.message_type is not None}


_BODY_FIELDS: dict[type, dict[str, str]] = {
    envelope: _body_fields(envelope)
    for envelope in (
        agent_pb2.AgentMessage,
        agent_pb2.AgentDirective,
        edge_pb2.EdgeMessage,
        edge_pb2.EdgeUpdate,
    )
}

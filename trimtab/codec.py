"""Model values to wire messages and back: the only file that knows both.

Rule: a model class and its message have the same name and the same field names, so one table made
from the two converts everything. Optional fields are None when absent; enums keep their numbers,
and one that is unknown here (a newer peer's) reads as UNSPECIFIED; numbers that are not finite are
refused, except +Inf as a bucket's bound. Errors: WireError says what, where, and what is allowed.
"""

from __future__ import annotations

import dataclasses
import math
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    message: type[Message]
    fields: tuple[_Field, ...]


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
    arguments: dict[str, Any] = {}
    for field in _PLANS[cls].fields:
        try:
            if field.repeated:
                parts = getattr(message, field.name)
                arguments[field.name] = tuple([field.decode(part) for part in parts])
            elif field.optional and not message.HasField(field.name):
                arguments[field.name] = None
            else:
                arguments[field.name] = field.decode(getattr(message, field.name))
        except WireError as error:
            raise WireError(f"{cls.__name__}.{field.name}: {error}") from None
    return cls(**arguments)


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


def encode_update(update: model.EdgeUpdate) -> edge_pb2.EdgeUpdate:
    """A push on the wire."""
    header = {"term": update.term, "version": update.version, "nonce": update.nonce}
    return encode_body(edge_pb2.EdgeUpdate, update.body, **header)


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
    return _Plan(message, fields)


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

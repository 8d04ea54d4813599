"""Model values to wire messages and back: the only file that knows both.

Rule: a model class and its message have the same name and the same field names, so converters are
compiled from the two. Optional fields are None when absent; enums keep their numbers,
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

from trimtab import model
from trimtab.v1 import (
    admin_pb2,
    agent_pb2,
    config_pb2,
    doctor_pb2,
    edge_pb2,
    explain_pb2,
    remedy_pb2,
    steer_pb2,
    types_pb2,
)

T = TypeVar("T")
Convert = Callable[[Any], Any]
UNBOUNDED_FIELDS = frozenset({"le_s"})  # +Inf is the last bucket's honest bound


class WireError(ValueError):
    """A message that a peer should not have sent."""


def encode(value: object) -> Any:
    """The wire message of a model value. O(fields)."""
    return _COMPILED[type(value)][0](value)


def decode(message: Message, cls: type[T]) -> T:
    """The model value of a wire message; raises WireError on values no peer should send."""
    return typing.cast(T, _COMPILED[cls][1](message))


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
    """Pushes as bytes; what many edges are told alike, the very same snapshots and credits, is
    made once.
    """

    def __init__(self) -> None:
        self._held: list[object] = []  # so that no other value gets the id of one of these
        self._known: dict[int, bytes] = {}

    def update(self, update: model.EdgeUpdate) -> bytes:
        """One push, as `encode_update` would have it, of a leader that reads steady use."""
        body = update.body
        header = edge_pb2.EdgeUpdate(
            term=update.term, version=update.version, nonce=update.nonce, reads_steady=True
        )
        content = self._credits(body) if isinstance(body, model.Credits) else self._whole(body)
        number = _UPDATE_FIELDS[type(body)]
        return header.SerializeToString() + _delimited(number, content)

    def _whole(self, body: model.Snapshot | model.Delta) -> bytes:
        if isinstance(body, model.Delta):
            return _bytes(body)
        if id(body) not in self._known:
            self._add(body, _bytes(body))
        return self._known[id(body)]

    def _credits(self, body: model.Credits) -> bytes:
        """Each credit from what is known, and what is the edge's own."""
        known = self._known
        for credit in body.credits:
            if id(credit) not in known:
                number = edge_pb2.Credits.CREDITS_FIELD_NUMBER
                self._add(credit, _delimited(number, _bytes(credit)))
        own = _bytes(model.Credits(paces=body.paces, leaving=body.leaving))
        return b"".join([*map(known.__getitem__, map(id, body.credits)), own])

    def _add(self, value: object, content: bytes) -> None:
        self._held.append(value)
        self._known[id(value)] = content


def _bytes(value: object) -> bytes:
    return typing.cast(bytes, encode(value).SerializeToString())


def _delimited(number: int, content: bytes) -> bytes:
    """A field that is a message: its number and type, its length, itself."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


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


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    optional: bool
    repeated: bool
    encode: Convert
    decode: Convert

    def writing(self) -> str:
        """The expression for its value on the wire, where None means absent."""
        item, name = f"value.{self.name}", self.name
        if self.encode is _same:
            return item
        if self.repeated:
            return f"[{name}_out(part) for part in {item}]"
        return f"None if {item} is None else {name}_out({item})"

    def reading(self) -> list[str]:
        """The statements that bring its value off the wire."""
        item, name = f"message.{self.name}", self.name
        if self.decode is _same:
            one, parts = item, f"tuple({name})"
        else:
            one, parts = f"{name}_in({item})", f"tuple([{name}_in(part) for part in {name}])"
        if self.repeated:
            lines = [f"{name} = {item}", f"{name} = {parts} if {name} else ()"]
        elif self.optional:
            lines = [f"{name} = {one} if message.HasField({name!r}) else None"]
        else:
            lines = [f"{name} = {one}"]
        return lines if self.decode is _same else [f"where = {name!r}", *lines]


def _enum_reader(cls: type[IntEnum]) -> Convert:
    members = {member.value: member for member in cls}
    unspecified = members[0]
    return lambda number: members.get(number, unspecified)


def _converters(kind: Any, name: str) -> tuple[Convert, Convert]:
    if dataclasses.is_dataclass(kind):
        return _COMPILED[typing.cast(type, kind)]
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


def _compile(cls: type) -> tuple[Convert, Convert]:
    """A class's two converters, as a person would write them: reading a table for each value takes
    twice as long.
    """
    hints = typing.get_type_hints(cls)
    fields = [_field(f.name, hints[f.name]) for f in dataclasses.fields(cls)]
    names = [field.name for field in fields]
    # What is frozen is set field by field, slowly. So a twin with the same slots that is not
    # frozen is made, and becomes one of them.
    twin = dataclasses.make_dataclass(cls.__name__, names, slots=True)
    reading = "\n        ".join(line for field in fields for line in field.reading())
    source = f"""
def encode(value):
    return Message({", ".join(f"{field.name}={field.writing()}" for field in fields)})

def decode(message):
    where = ""
    try:
        {reading}
    except WireError as error:
        raise WireError(f"{cls.__name__}.{{where}}: {{error}}") from None
    made = Twin({", ".join(names)})
    made.__class__ = cls
    return made
"""
    scope: dict[str, Any] = {
        "Message": _MESSAGES[cls.__name__],
        "Twin": twin,
        "cls": cls,
        "WireError": WireError,
    }
    scope |= {f"{field.name}_out": field.encode for field in fields}
    scope |= {f"{field.name}_in": field.decode for field in fields}
    exec(source, scope)  # noqa: S102 - of names in our own code alone
    return scope["encode"], scope["decode"]


def _message_classes() -> dict[str, type[Message]]:
    modules = (
        types_pb2,
        agent_pb2,
        edge_pb2,
        steer_pb2,
        admin_pb2,
        explain_pb2,
        config_pb2,
        doctor_pb2,
        remedy_pb2,
    )
    return {
        name: getattr(module, name)
        for module in modules
        for name in module.DESCRIPTOR.message_types_by_name
    }


_MESSAGES = _message_classes()


class _Compiled(dict[type, tuple[Convert, Convert]]):
    """Made when first asked for: a program needs some of them."""

    def __missing__(self, cls: type) -> tuple[Convert, Convert]:
        self[cls] = _compile(cls)
        return self[cls]


_COMPILED = _Compiled()


def _body_fields(envelope: type[Message]) -> dict[str, str]:
    fields = envelope.DESCRIPTOR.oneofs_by_name["body"].fields
    return {f.message_type.name: f.name for f in fields if f.message_type is not None}


_UPDATE_FIELDS: dict[type, int] = {
    model.Snapshot: edge_pb2.EdgeUpdate.SNAPSHOT_FIELD_NUMBER,
    model.Delta: edge_pb2.EdgeUpdate.DELTA_FIELD_NUMBER,
    model.Credits: edge_pb2.EdgeUpdate.CREDITS_FIELD_NUMBER,
}
_BODY_FIELDS: dict[type, dict[str, str]] = {
    envelope: _body_fields(envelope)
    for envelope in (
        agent_pb2.AgentMessage,
        agent_pb2.AgentDirective,
        edge_pb2.EdgeMessage,
        edge_pb2.EdgeUpdate,
    )
}

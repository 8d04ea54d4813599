"""Model and wire hold together: by reflection for every class, by hypothesis for every value."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from enum import IntEnum
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab import codec, facts, model, steered, views
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

MODULES = (
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
ENVELOPES: dict[str, Any] = {
    "AgentMessage": agent_pb2.AgentMessage,
    "AgentDirective": agent_pb2.AgentDirective,
    "EdgeMessage": edge_pb2.EdgeMessage,
    "EdgeUpdate": edge_pb2.EdgeUpdate,
}
CALLS = ("Request", "Response")  # suffixes of messages that only wrap a call
MESSAGES: dict[str, type[Message]] = {
    name: getattr(module, name)
    for module in MODULES
    for name in module.DESCRIPTOR.message_types_by_name
    if name not in ENVELOPES and not name.endswith(CALLS)
}
CLASSES: dict[str, Any] = {
    name: cls
    for name, cls in (vars(model) | vars(views) | vars(steered) | vars(facts)).items()
    if isinstance(cls, type) and dataclasses.is_dataclass(cls) and name not in ENVELOPES
}
ENUMS = {
    name: descriptor
    for m in MODULES
    for name, descriptor in m.DESCRIPTOR.enum_types_by_name.items()
}
UINT_BITS = {FieldDescriptor.TYPE_UINT32: 32, FieldDescriptor.TYPE_UINT64: 64}


@dataclasses.dataclass(frozen=True)
class Hint:
    """A field's type hint, taken apart."""

    kind: Any
    optional: bool
    repeated: bool


def hints(cls: Any) -> dict[str, Hint]:
    """The hints of every field."""
    return {name: _hint(hint) for name, hint in typing.get_type_hints(cls).items()}


def _hint(hint: Any) -> Hint:
    if isinstance(hint, types.UnionType):
        kind, none = typing.get_args(hint)
        assert none is type(None)
        return Hint(kind, optional=True, repeated=False)
    if typing.get_origin(hint) is tuple:
        kind, dots = typing.get_args(hint)
        assert dots is ...
        return Hint(kind, optional=False, repeated=True)
    return Hint(hint, optional=False, repeated=False)


def values(name: str) -> st.SearchStrategy[Any]:
    """Any value of a model class."""
    fields = MESSAGES[name].DESCRIPTOR.fields_by_name
    return st.builds(
        CLASSES[name], **{f: _field(h, fields[f]) for f, h in hints(CLASSES[name]).items()}
    )


def _field(hint: Hint, field: Any) -> st.SearchStrategy[Any]:
    one = _scalar(hint.kind, field)
    if hint.repeated:
        return st.lists(one, max_size=3).map(tuple)
    return st.none() | one if hint.optional else one


def _scalar(kind: Any, field: Any) -> st.SearchStrategy[Any]:
    if dataclasses.is_dataclass(kind):
        return values(typing.cast(type, kind).__name__)
    if issubclass(kind, IntEnum):
        return st.sampled_from(kind)
    if kind is int:
        return st.integers(0, 2 ** UINT_BITS[field.type] - 1)
    if kind is float and field.name in codec.UNBOUNDED_FIELDS:
        return st.floats(allow_nan=False, min_value=0.0)
    by_kind: dict[Any, st.SearchStrategy[Any]] = {
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        str: st.text(max_size=20),
        bytes: st.binary(max_size=32),
    }
    return by_kind[kind]


def through_the_wire(message: Message) -> Message:
    """What the peer gets."""
    return type(message).FromString(message.SerializeToString())


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_round_trip(name: str, data: st.DataObject) -> None:
    value = data.draw(values(name))
    assert codec.decode(through_the_wire(codec.encode(value)), CLASSES[name]) == value


def test_every_class_has_its_message_and_every_message_its_class() -> None:
    assert sorted(CLASSES) == sorted(MESSAGES)


@pytest.mark.parametrize("name", CLASSES)
def test_same_fields(name: str) -> None:
    fields = MESSAGES[name].DESCRIPTOR.fields_by_name
    declared = hints(CLASSES[name])
    assert set(declared) == set(fields)
    for key, hint in declared.items():
        field = fields[key]
        is_message = field.type == FieldDescriptor.TYPE_MESSAGE
        assert field.is_repeated == hint.repeated, key
        assert is_message == dataclasses.is_dataclass(hint.kind), key
        if not is_message and not hint.repeated:
            assert field.has_presence == hint.optional, key
        if field.enum_type is not None:
            assert field.enum_type.name == hint.kind.__name__, key


@pytest.mark.parametrize("name", ENUMS)
def test_same_enums(name: str) -> None:
    snake = "".join(f"_{c}" if c.isupper() else c.upper() for c in name).lstrip("_")
    wire = {value.name.removeprefix(f"{snake}_"): value.number for value in ENUMS[name].values}
    known = vars(model) | vars(views) | vars(steered)
    assert {member.name: member.value for member in known[name]} == wire


@pytest.mark.parametrize("name", CLASSES)
def test_empty_message_reads_as_absent_and_unspecified(name: str) -> None:
    value = codec.decode(MESSAGES[name](), CLASSES[name])
    for key, hint in hints(CLASSES[name]).items():
        got = getattr(value, key)
        if hint.optional:
            assert got is None, key
        elif hint.repeated:
            assert got == (), key
        elif isinstance(got, IntEnum):
            assert got.name == "UNSPECIFIED", key


def test_absent_and_zero_stay_apart() -> None:
    zero = model.EngineSample("r", model.EngineState.READY, running=0)
    absent = dataclasses.replace(zero, running=None)
    assert codec.encode(zero).HasField("running")
    assert not codec.encode(absent).HasField("running")


def test_unknown_enum_reads_as_unspecified() -> None:
    newer = agent_pb2.EngineSample(replica="r")
    newer.MergeFromString(b"\x10\x63")  # field 2, state = 99
    assert codec.decode(newer, model.EngineSample).state is model.EngineState.UNSPECIFIED


@pytest.mark.parametrize("name", CLASSES)
def test_fields_of_a_newer_peer_are_ignored_and_kept(name: str) -> None:
    unknown = b"\x82\x7d\x05newer"  # field 2000, five bytes
    message = MESSAGES[name].FromString(unknown)
    assert codec.decode(message, CLASSES[name]) == codec.decode(MESSAGES[name](), CLASSES[name])
    assert unknown in message.SerializeToString()


FLOATS = [
    (name, key)
    for name in CLASSES
    for key, hint in hints(CLASSES[name]).items()
    if hint.kind is float
]


@pytest.mark.parametrize(("name", "key"), FLOATS)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(name: str, key: str, number: float) -> None:
    message = MESSAGES[name]()
    if message.DESCRIPTOR.fields_by_name[key].is_repeated:
        getattr(message, key).append(number)
    else:
        setattr(message, key, number)
    if key in codec.UNBOUNDED_FIELDS and number == math.inf:
        assert getattr(codec.decode(message, CLASSES[name]), key) == (math.inf,)
        return
    with pytest.raises(codec.WireError, match=rf"^{name}\.{key}: -?(nan|inf) is not"):
        codec.decode(message, CLASSES[name])


def test_error_names_the_path() -> None:
    bad = admin_pb2.Fleet(replicas=[admin_pb2.ReplicaView(weight=math.nan)])
    with pytest.raises(codec.WireError, match=r"^Fleet\.replicas: ReplicaView\.weight: nan is not"):
        codec.decode(bad, views.Fleet)


BODIES = [
    (envelope, field.message_type.name)
    for envelope, cls in ENVELOPES.items()
    for field in cls.DESCRIPTOR.oneofs_by_name["body"].fields
]


@pytest.mark.parametrize(("envelope", "name"), BODIES)
def test_bodies_round_trip(envelope: str, name: str) -> None:
    value = codec.decode(MESSAGES[name](), CLASSES[name])
    message = codec.encode_body(ENVELOPES[envelope], value)
    assert codec.decode_body(through_the_wire(message)) == value


@pytest.mark.parametrize("envelope", ["AgentMessage", "AgentDirective", "EdgeMessage"])
def test_unions_name_what_the_envelopes_carry(envelope: str) -> None:
    union = typing.get_args(getattr(model, envelope))
    assert {cls.__name__ for cls in union} == {name for e, name in BODIES if e == envelope}


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("wire", [b"", b"\x82\x7d\x05newer"])
def test_empty_and_newer_bodies_are_none(envelope: str, wire: bytes) -> None:
    assert codec.decode_body(ENVELOPES[envelope].FromString(wire)) is None


@pytest.mark.parametrize("body", [model.Snapshot(), model.Delta(3), model.Credits()])
def test_update_round_trip(body: model.Snapshot | model.Delta | model.Credits) -> None:
    update = model.EdgeUpdate(term=2, version=2**40, nonce=7, body=body)
    message = through_the_wire(codec.encode_update(update))
    assert isinstance(message, edge_pb2.EdgeUpdate)
    assert codec.decode_update(message) == update


def test_update_without_a_body_is_refused() -> None:
    with pytest.raises(codec.WireError, match=r"EdgeUpdate\.body"):
        codec.decode_update(edge_pb2.EdgeUpdate(term=1))


def test_shared_parts_change_nothing_on_the_wire() -> None:
    shared = model.Credit("r1", 3, weight=0.5, running=0)
    pools = (model.PoolPace("m", 1.0), model.PoolPace("n"))
    bodies = (
        model.Credits((shared, model.Credit("r2", 0)), pools[:1]),
        model.Credits((shared, model.Credit("r2", 1)), pools),
        model.Credits(),
        model.Snapshot(pools=(model.Pool("m"),)),
        model.Snapshot(tuple(model.Pool(f"model {n}") for n in range(2_000))),  # a long length
        model.Snapshot(),
        model.Delta(4, pools_gone=("m",)),
    )
    parts = codec.Parts()
    for body in bodies * 2:
        update = model.EdgeUpdate(1, 2, 3, body)
        message = edge_pb2.EdgeUpdate.FromString(parts.update(update))
        assert message.reads_steady
        message.ClearField("reads_steady")
        assert message == codec.encode_update(update)
        assert codec.decode_update(message) == update

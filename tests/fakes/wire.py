"""Arbitrary messages of a kind, as hostile peers may put them on the wire (hypothesis)."""

from __future__ import annotations

import math
import sys
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

U32, U64 = 2**32 - 1, 2**64 - 1
TEXTS = ("r1", "r2", "n1", "m", "http://h:1/r1", "", "a b", "\x1b[2J", "x" * 200)
FINITE = (0.0, 0.5, 1.0, -1.0, 1e300, -1e300, sys.float_info.min)
FLOATS = (*FINITE * 5, math.nan, math.inf)  # what is not finite is refused with its whole message
LIST_LIMIT = 3
_SIMPLE: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: st.sampled_from(TEXTS),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=4),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from(FLOATS),
    FieldDescriptor.TYPE_UINT32: st.sampled_from((0, 1, 2, 16, 1000, U32)),
    FieldDescriptor.TYPE_UINT64: st.sampled_from((0, 1, 2, 16, 1000, U64)),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 9),
}


@st.composite
def messages(draw: st.DrawFn, kind: type[Message]) -> Message:
    """One message of this kind, with any of its fields."""
    message = kind()
    _fill(draw, message)
    return message


def _fill(draw: st.DrawFn, message: Any) -> None:
    descriptor: Descriptor = message.DESCRIPTOR
    for field in descriptor.fields:
        if field.containing_oneof is not None and field.containing_oneof.name == "body":
            continue
        if field.is_repeated:
            _fill_list(draw, getattr(message, field.name), field)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if draw(st.booleans()):
                _fill(draw, getattr(message, field.name))
        elif not field.has_presence or draw(st.booleans()):
            setattr(message, field.name, draw(_SIMPLE[field.type]))
    if "body" in descriptor.oneofs_by_name:
        chosen = draw(st.sampled_from(list(descriptor.oneofs_by_name["body"].fields)))
        getattr(message, chosen.name).SetInParent()
        _fill(draw, getattr(message, chosen.name))


def _fill_list(draw: st.DrawFn, items: Any, field: FieldDescriptor) -> None:
    for _ in range(draw(st.integers(0, LIST_LIMIT))):
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            _fill(draw, items.add())
        else:
            items.append(draw(_SIMPLE[field.type]))

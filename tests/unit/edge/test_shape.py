"""edge/core/shape: what is read at a glance is what reading it event by event would give."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import sse
from edge.core.naming import Namer
from edge.core.shape import Shape
from edge.core.sse import Kind
from edge.core.surface import Dialect


def event(text: str, key: str = "content", *, model: str = "served", **more: object) -> bytes:
    choice = {"index": 0, "delta": {key: text}, "logprobs": None, "finish_reason": None}
    chunk = {"id": "x", "model": model, "choices": [choice | more]}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def learnt(first: bytes, name: str) -> tuple[Shape, Namer]:
    shape, namer = Shape(), Namer(Dialect.OPENAI, name)
    shape.learn(first, namer.events(first))
    return shape, namer


TEXTS = st.lists(
    st.text()
    | st.sampled_from(['"', "\\", '"content":"', "data: [DONE]\n\n", '"error"', "\\u0041"]),
    min_size=1,
    max_size=6,
)


@given(TEXTS, st.sampled_from(["served", "public"]))
def test_plain_events_pass_as_they_would_singly(texts: list[str], name: str) -> None:
    shape, namer = learnt(event("first"), name)
    events = [event(text) for text in texts]
    plain = shape.read(b"".join(events))
    assert plain is not None
    assert plain.passing == b"".join(map(namer.events, events))
    assert json.loads(b'"%b"' % plain.said) == "".join(texts)
    assert plain.number == len(texts)


@given(TEXTS, st.sampled_from([b"", event("x", finish_reason="stop"), b"data: [DONE]\n\n", b"da"]))
def test_the_plain_ones_at_the_beginning_are_found(texts: list[str], behind: bytes) -> None:
    shape, _ = learnt(event("first"), "public")
    events = b"".join(map(event, texts))
    assert shape.extent(events + behind) == len(events)
    assert shape.extent(behind) == 0


@pytest.mark.parametrize(
    "other",
    [
        event("x", finish_reason="stop"),
        event("x", finish_reason="abort"),
        event("x", index=1),
        event("x", logprobs={}),
        event("x", "reasoning"),
        event("x", model="another"),
        event("x")[:-1],
        event("x") + b": comment\n\n",
        b"data: [DONE]\n\n",
        b'data: {"error":{"message":"x"}}\n\n',
        b'data: {"id":"x","model":"served","choices":[],"usage":{"completion_tokens":1}}\n\n',
        b"",
    ],
)
def test_whatever_is_not_known_is_to_be_read(other: bytes) -> None:
    shape, _ = learnt(event("first"), "public")
    for data in (other, event("x") + other, other + event("x")):
        assert shape.read(data) is None or data in {event("x"), event("x") + event("x")}


@given(st.text(), st.integers(0, 300), st.integers(0, 300), st.binary(max_size=30))
def test_what_looks_plain_is_plain(text: str, at: int, gone: int, put: bytes) -> None:
    shape, _ = learnt(event("first"), "served")
    raw = event(text)
    cut = raw[:at] + put + raw[at + gone :]
    if (plain := shape.read(cut)) is not None:
        read = sse.Scanner(singly=True).feed(cut)
        assert [one.kind for one in read] == [Kind.DATA] * plain.number


def test_nothing_is_known_before_it_was_learnt_and_what_has_no_text_teaches_nothing() -> None:
    shape = Shape()
    assert shape.read(event("x")) is None
    shape.learn(b'data: {"choices":[{"delta":{}}]}\n\n', b"")
    assert shape.read(event("x")) is None
    shape.learn(event("x"), b"something else")
    assert shape.read(event("x")) is None

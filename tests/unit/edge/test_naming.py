"""edge/core/naming: the envelope's name changes, the same words anywhere else do not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import dialects, naming
from edge.core.naming import Namer
from edge.core.surface import Dialect

TRAP = '","model":"served","x":"'


def data(value: object, kind: str = "") -> bytes:
    head = f"event: {kind}\n" if kind else ""
    return f"{head}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def chunk(text: str, model: str = "served") -> dict[str, Any]:
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "text": text, "tool": {"model": "served"}}],
    }


@given(st.lists(st.one_of(st.text(), st.just(TRAP), st.just('"model":"served"')), max_size=5))
def test_every_chunk_and_nothing_in_its_text(texts: list[str]) -> None:
    namer = Namer(Dialect.OPENAI, "public")
    for text in texts:
        assert namer.events(data(chunk(text))) == data(chunk(text, "public"))
    several = b"".join(data(chunk(text)) for text in texts)
    expected = b"".join(data(chunk(text, "public")) for text in texts)
    for one in (namer, Namer(Dialect.OPENAI, "public")):
        assert one.events(several) == expected
    assert namer.events(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"


@pytest.mark.parametrize("name", ["served", 'a "quoted" name', "naïve/model", "\\"])
def test_any_name(name: str) -> None:
    for served, public in (("served", name), (name, "public"), (name, name)):
        namer = Namer(Dialect.OPENAI, public)
        for text in ("one", "two"):
            found = namer.events(data(chunk(text, served)))
            assert json.loads(found[6:]) == chunk(text, public)


def test_the_name_may_follow_the_choices() -> None:
    namer = Namer(Dialect.OPENAI, "public")
    for text in ("one", "two"):
        raw = data({"choices": chunk(text)["choices"], "model": "served"})
        assert json.loads(namer.events(raw)[6:]) == {
            "choices": chunk(text)["choices"],
            "model": "public",
        }


@pytest.mark.parametrize(
    ("dialect", "kind", "within"),
    [
        (Dialect.RESPONSES, "response.completed", "response"),
        (Dialect.ANTHROPIC, "message_start", "message"),
    ],
)
def test_where_other_dialects_have_it(dialect: Dialect, kind: str, within: str) -> None:
    def event(model: str) -> bytes:
        inner = {"id": "x", "metadata": {"model": "served"}, "model": model}
        return data({"type": kind, "model": "served", within: inner}, kind)

    assert Namer(dialect, "public").events(event("served")) == event("public")
    delta = data({"type": "delta", "delta": TRAP, "input": {"model": "served"}}, "delta")
    assert Namer(dialect, "public").events(delta) == delta


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"served","a":1.0}', b'{"model":"public","a":1.0}'),
        (b'{"content":[{"input":{"model":"served"}}],"model":"x"}',) * 2,
        (b'{"usage":{}}',) * 2,
        (b'{"model":{"a":1}}',) * 2,
        (b"\x00\xff",) * 2,
        (b"[1]",) * 2,
    ],
)
def test_whole_answers(body: bytes, expected: bytes) -> None:
    assert naming.whole(body, dialects.said(body).model, "public") == expected.replace(
        b'"model":"x"', b'"model":"public"'
    )


@pytest.mark.parametrize(
    "broken", [b'"model":"served"\n\n', b'{"model":"served"\n\n', b'"model":}\n\n']
)
def test_what_is_no_json_is_said_to_be_none(broken: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        Namer(Dialect.OPENAI, "public").events(b"data: " + broken)

"""edge/core/splice: what is ours changes, every other byte stays."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.splice import splice

OWNED: dict[str, bytes | None] = {
    "model": b'"served"',
    "stream_options": b'{"include_usage":true}',
    "priority": None,
}
NAMES = st.one_of(st.sampled_from([*OWNED, "messages", "m", ""]), st.text(max_size=4))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
        st.just('{"model":"x","priority":1},"model":'),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
SPACE = st.sampled_from(["", " ", "\n  ", "\t", "\r\n"])


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """An object as anybody may write it: any spaces, escapes, and fields given twice."""
    members = draw(st.lists(st.tuples(NAMES, VALUES), max_size=6))
    ascii_only = draw(st.booleans())
    parts = []
    for name, value in members:
        key = json.dumps(name, ensure_ascii=ascii_only)
        if name and draw(st.booleans()):
            key = f'"\\u{ord(name[0]):04x}{key[2:]}' if ord(name[0]) < 0x20 + 95 else key
        text = json.dumps(value, ensure_ascii=ascii_only, indent=draw(st.sampled_from([None, 1])))
        parts.append("".join((draw(SPACE), key, draw(SPACE), ":", draw(SPACE), text, draw(SPACE))))
    whole = draw(SPACE) + "{" + ",".join(parts) + (draw(SPACE) if not parts else "") + "}"
    return (whole + draw(SPACE)).encode(errors="surrogatepass")


def decodes(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


@given(objects().filter(decodes), st.sets(st.sampled_from(sorted(OWNED))))
def test_the_result_is_the_same_but_for_what_is_owned(body: bytes, names: set[str]) -> None:
    changes = {name: OWNED[name] for name in names}
    expected = {name: value for name, value in json.loads(body).items() if name not in changes}
    found = json.loads(splice(body, changes))
    for name, value in changes.items():
        if value is None:
            assert name not in found
        else:
            assert found.pop(name) == json.loads(value)
    assert found == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model": "m", "n":1.50}', b'{"model": "served", "n":1.50,%b}'),
        (b'{\n  "a": 1e2,\n  "priority": [1]\n}', b'{\n  "a": 1e2,"model":"served",%b}'),
        (b'{"priority":1}', b'{"model":"served",%b}'),
        (b"{ }", b'{"model":"served",%b}'),
        (
            '{"x":"\\u00e9é\\/","model":null}'.encode(),
            '{"x":"\\u00e9é\\/","model":"served",%b}'.encode(),
        ),
        (b'{"priority":1,"model":"a","priority":2}', b'{"model":"served",%b}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"served",%b}'),
    ],
)
def test_every_other_byte_stays(body: bytes, expected: bytes) -> None:
    assert splice(body, OWNED) == expected % b'"stream_options":{"include_usage":true}'


def test_no_changes_no_change() -> None:
    body = b'{"z":[1, 2.0,{"model" :"x"}],"a":"\\"model\\":1"}'
    assert splice(body, {}) == body


def test_a_large_body() -> None:
    body = b'{"messages":[{"content":"%b"}],"model":"m","last":1.0}' % (b"x\\n" * 2_000_000)
    assert len(splice(body, {"model": b'"a"'})) == len(body)
    assert math.isclose(json.loads(splice(body, {"messages": None}))["last"], 1.0)

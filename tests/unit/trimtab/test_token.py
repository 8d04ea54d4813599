"""A join token is what a person pastes, and nothing else is one."""

from __future__ import annotations

import shlex
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.runtime.token import JoinToken

PIN = "ab" * 32
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(secret=HEX, pin=HEX, number=HEX, space=st.sampled_from(["", " ", "\n"]))
def test_what_is_printed_is_read(secret: str, pin: str, number: str, space: str) -> None:
    token = JoinToken(number[:12], secret, pin)
    assert JoinToken.parse(space + token.text() + space) == token
    assert shlex.quote(token.text()) == token.text(), "no quotes needed"
    assert secret not in repr(token).replace(pin, "").replace(number, "")


@given(st.text())
def test_other_texts_are_none(text: str) -> None:
    assert JoinToken.parse(text) is None
    assert JoinToken.parse(f"tt-join-{text}") is None


@given(at=st.integers(0, 10_000), character=st.sampled_from(string.printable.strip()))
def test_a_token_that_was_touched_is_none_or_another(at: int, character: str) -> None:
    token = JoinToken.new(PIN)
    text = token.text()
    at %= len(text)
    changed = JoinToken.parse(text[:at] + character + text[at + 1 :])
    assert changed is None or (changed == token) == (text[at] == character)


def test_two_are_never_the_same() -> None:
    tokens = [JoinToken.new(PIN) for _ in range(100)]
    assert len({token.id for token in tokens}) == len({token.secret for token in tokens}) == 100
    assert tokens[0].secret not in repr(tokens[0])


@pytest.mark.parametrize("part", ["", "-", "-x"])
def test_more_or_less_is_none(part: str) -> None:
    text = JoinToken.new(PIN).text()
    assert JoinToken.parse(text[:-1] + part) is None
    assert JoinToken.parse(text + "a" + part) is None

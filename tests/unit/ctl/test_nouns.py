"""Nouns by any of their names."""

from __future__ import annotations

import pytest

from ctl import nouns


@pytest.mark.parametrize(
    ("word", "noun"),
    [
        ("replicas", "replicas"),
        ("replica", "replicas"),
        ("re", "replicas"),
        ("Edge", "edges"),
        ("ag", "agents"),
        ("po", "pools"),
        ("", None),
        ("r", None),
        ("replicass", None),
    ],
)
def test_find(word: str, noun: str | None) -> None:
    assert nouns.find(word) == noun


def test_no_word_means_two_things() -> None:
    words = [word for noun, others in nouns.NOUNS.items() for word in (noun, *others)]
    assert len(words) == len(set(words))


def test_closest_is_silent_when_nothing_is_near() -> None:
    assert nouns.closest("gpu1", ["gpu0", "edge"]) == ' Did you mean "gpu0"?'
    assert nouns.closest("zzz", ["gpu0"]) == ""

"""Lengths of time as people type them."""

from __future__ import annotations

import pytest

from trimtab.runtime import spans


@pytest.mark.parametrize(
    ("text", "length_s"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h", 3_600),
        ("7d", 604_800),
        ("0s", 0),
        ("999999s", 999_999),
        ("1000000s", None),
        ("", None),
        ("15", None),
        ("m", None),
        ("-1s", None),
        ("1.5h", None),
        ("1h30m", None),
        ("1w", None),
    ],
)
def test_a_number_and_a_unit(text: str, length_s: int | None) -> None:
    assert spans.seconds(text) == length_s


def test_who_asks_says_which_units_and_how_many_digits() -> None:
    assert spans.seconds("1d", "smh") is None
    assert spans.seconds("1000000s", digits=9) == 1_000_000

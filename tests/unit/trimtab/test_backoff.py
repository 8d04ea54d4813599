"""Waits double to a cap; half of each is sure."""

from __future__ import annotations

import pytest

from trimtab.runtime.backoff import Backoff


class Loaded:
    """Dice that always show the same."""

    def __init__(self, value: float) -> None:
        self._value = value

    def random(self) -> float:
        return self._value


@pytest.mark.parametrize(
    ("dice", "waits_s"),
    [
        (0.0, [0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5]),
        (0.5, [0.15, 0.3, 0.6, 1.2, 2.4, 3.75, 3.75]),
        (1.0, [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]),
    ],
)
def test_waits(dice: float, waits_s: list[float]) -> None:
    backoff = Backoff(Loaded(dice))
    assert [backoff.next_s() for _ in waits_s] == pytest.approx(waits_s)


def test_reset_starts_over() -> None:
    backoff = Backoff(Loaded(1.0), first_s=1.0, cap_s=8.0)
    before = [backoff.next_s() for _ in range(3)]
    backoff.reset()
    assert (before, backoff.next_s()) == ([1.0, 2.0, 4.0], 1.0)


def test_thousands_of_failures_do_not_overflow() -> None:
    backoff = Backoff(Loaded(1.0))
    assert max(backoff.next_s() for _ in range(5_000)) == 5.0

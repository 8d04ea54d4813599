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
        (0.0, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        (0.5, [0.15, 0.3, 0.6, 1.2, 1.5, 1.5]),
        (1.0, [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]),
    ],
)
def test_waits(dice: float, waits_s: list[float]) -> None:
    backoff = Backoff(Loaded(dice))
    assert [backoff.next_s() for _ in waits_s] == pytest.approx(waits_s)


def test_an_attempt_that_was_held_has_waited_already() -> None:
    backoff = Backoff(Loaded(1.0), first_s=1.0)
    assert [backoff.next_s(tried_s) for tried_s in (0.25, 0.5, 3.0)] == [0.75, 1.5, 0.0]


def test_reset_starts_over() -> None:
    backoff = Backoff(Loaded(1.0), first_s=1.0, cap_s=8.0)
    before = [backoff.next_s() for _ in range(3)]
    backoff.reset()
    assert (before, backoff.next_s()) == ([1.0, 2.0, 4.0], 1.0)


def test_thousands_of_failures_do_not_overflow() -> None:
    backoff = Backoff(Loaded(1.0))
    assert max(backoff.next_s() for _ in range(5_000)) == 2.0

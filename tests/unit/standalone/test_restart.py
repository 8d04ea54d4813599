"""When a child that died is started again."""

from __future__ import annotations

import pytest

from standalone import restart
from trimtab.runtime.backoff import Backoff


class Sure:
    """Dice that always show their highest number."""

    def random(self) -> float:
        """One."""
        return 1.0


@pytest.mark.parametrize(
    ("code", "deaths_unready", "gives_up"),
    [
        (64, 1, True),  # it said what is wrong with its configuration
        (1, 1, False),
        (-9, 2, False),
        (1, restart.FIRST_TRIES, True),
        (64, None, False),  # it served once with the same configuration
        (1, None, False),
    ],
)
def test_giving_up(code: int, deaths_unready: int | None, gives_up: bool) -> None:
    wait_s = restart.wait_s(code, 0.0, deaths_unready, Backoff(Sure()))
    assert (wait_s is None) == gives_up


def test_waits_grow_to_a_cap_and_start_over_after_a_stable_time() -> None:
    backoff = Backoff(Sure(), cap_s=restart.WAIT_MAX_S)
    waits = [restart.wait_s(1, 1.0, None, backoff) for _ in range(7)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert restart.wait_s(1, restart.STABLE_S, None, backoff) == 0.2


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with exit status 0"),
        (-9, "was killed by SIGKILL"),
        (-63, "was killed by signal 63"),
    ],
)
def test_how_it_ended(code: int, text: str) -> None:
    assert restart.how(code) == text

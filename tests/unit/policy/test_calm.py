"""policy/calm: a burst after calm may wait long, a queue that stands may not."""

from __future__ import annotations

import pytest

from trimtab.model import Urgency
from trimtab.policy.calm import WATCHED_LIMIT, Budgets

LONG_S, SHORT_S = 45.0, 5.0


def looks(budgets: Budgets, *waits: tuple[float, float], tenant: str = "t") -> list[float]:
    """The budget at each (time, wait)."""
    return [budgets.now(Urgency.DEFAULT, tenant, wait_s, now_s) for now_s, wait_s in waits]


def test_a_newcomer_has_the_long_budget_and_keeps_it_for_as_long() -> None:
    burst = [(float(now_s), 3.0 + now_s) for now_s in range(61)]
    budgets = looks(Budgets(), (0.0, 0.0), *burst)
    assert budgets[:46] == [LONG_S] * 46
    assert budgets[-10:] == [SHORT_S] * 10


def test_one_empty_moment_is_no_calm_but_lasting_is() -> None:
    budgets = Budgets()
    standing = [(float(now_s), 6.0) for now_s in range(60)]
    moment = [(60.0, 0.0), (61.0, 0.2), (62.0, 6.0), (63.0, 0.0), (67.9, 0.1)]
    assert looks(budgets, *standing, *moment)[-5:] == [SHORT_S] * 5
    assert looks(budgets, (68.1, 0.4)) == [LONG_S]


def test_a_time_without_requests_is_calm_once_the_last_wait_is_over() -> None:
    budgets = Budgets()
    looks(budgets, *[(float(now_s), 6.0) for now_s in range(60)])
    assert looks(budgets, (69.0, 0.0)) == [SHORT_S], "empty since 65 at the earliest"
    assert looks(budgets, (70.1, 0.0)) == [LONG_S]


def test_anothers_flood_is_not_ones_own() -> None:
    budgets = Budgets()
    looks(budgets, *[(float(now_s), 6.0) for now_s in range(60)], tenant="flood")
    assert looks(budgets, (60.0, 0.0), tenant="light") == [LONG_S]
    assert looks(budgets, (60.0, 6.0), tenant="flood") == [SHORT_S]


@pytest.mark.parametrize(
    ("urgency", "long_s", "short_s"),
    [
        (Urgency.CRITICAL, 60.0, 15.0),
        (Urgency.INTERACTIVE, 20.0, 3.0),
        (Urgency.DEFAULT, 45.0, 5.0),
        (Urgency.BATCH, 600.0, 120.0),
        (Urgency.UNSPECIFIED, 45.0, 5.0),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1 / 12])
def test_budgets_scale_together(
    urgency: Urgency, long_s: float, short_s: float, scale: float
) -> None:
    budgets = Budgets(scale * LONG_S)
    assert budgets.longest_s(urgency) == pytest.approx(scale * long_s)
    assert budgets.now(urgency, "t", 1e9, 0.0) == pytest.approx(scale * long_s)
    assert budgets.now(urgency, "t", 1e9, 1e6) == pytest.approx(scale * short_s)


def test_what_is_watched_is_bounded() -> None:
    budgets = Budgets()
    for number in range(2 * WATCHED_LIMIT):
        budgets.now(Urgency.DEFAULT, f"t{number}", 9.0, float(number))
    assert budgets.now(Urgency.DEFAULT, "t0", 9.0, 1e6) == LONG_S, "forgotten, so new"
    recent = f"t{2 * WATCHED_LIMIT - 1}"
    assert budgets.now(Urgency.DEFAULT, recent, 9.0, 1e6) == SHORT_S

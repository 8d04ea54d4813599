"""policy/fairness: tenants that wait get the same work; idle time earns nothing."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.policy.fairness import TENANT_LIMIT, Shares


def serve(shares: Shares, waiting: list[str], costs: dict[str, float], times: int) -> list[str]:
    """Who is served when all of them always wait."""
    served = []
    for _ in range(times):
        first = shares.order(waiting)[0]
        shares.charge(first, costs[first])
        served.append(first)
    return served


def test_equal_costs_take_turns_and_unequal_ones_share_the_work() -> None:
    assert serve(Shares(), ["a", "b"], {"a": 1.0, "b": 1.0}, 4) == ["a", "b", "a", "b"]
    served = serve(Shares(), ["a", "b"], {"a": 1.0, "b": 4.0}, 100)
    assert served.count("a") == 4 * served.count("b")


def test_who_was_idle_begins_where_the_others_are() -> None:
    shares = Shares()
    shares.lift("busy", [])
    serve(shares, ["busy"], {"busy": 10.0}, 50)
    shares.lift("late", ["busy"])
    served = serve(shares, ["busy", "late"], {"busy": 10.0, "late": 10.0}, 10)
    assert served.count("late") == 5


def test_who_comes_when_nobody_waits_is_lifted_to_the_last_that_left() -> None:
    shares = Shares()
    shares.charge("busy", 500.0)
    shares.left("busy")
    shares.lift("late", [])
    assert shares.order(["busy", "late"]) == ["busy", "late"]
    assert serve(shares, ["busy", "late"], {"busy": 10.0, "late": 10.0}, 10).count("late") == 5


def test_who_used_more_than_estimated_waits_for_the_others_to_catch_up() -> None:
    shares = Shares()
    shares.charge("a", 10.0)
    shares.charge("b", 10.0)
    shares.charge("a", 90.0)  # its answer was that much longer
    assert serve(shares, ["a", "b"], {"a": 10.0, "b": 10.0}, 9) == ["b"] * 9


def test_counters_are_bounded_and_those_that_wait_are_kept() -> None:
    shares = Shares()
    shares.lift("waits", [])
    for number in range(2 * TENANT_LIMIT):
        shares.lift(f"t{number}", ["waits"])
        shares.charge(f"t{number}", 1.0)
    assert len(shares.counters) <= TENANT_LIMIT + 1
    assert "waits" in shares.counters


@settings(max_examples=50)
@given(
    st.lists(st.floats(1.0, 100.0), min_size=2, max_size=6), st.integers(0, 2**31), st.booleans()
)
def test_served_work_differs_by_two_requests_at_most(
    largest: list[float], seed: int, corrected: bool
) -> None:
    """I16: with all of them waiting all the time, whatever their requests cost."""
    dice, shares = random.Random(seed), Shares()
    names = [f"t{number}" for number in range(len(largest))]
    done = dict.fromkeys(names, 0.0)
    for _ in range(300):
        first = shares.order(names)[0]
        tokens = dice.uniform(0.0, largest[names.index(first)])
        estimate = largest[names.index(first)] / 2 if corrected else tokens
        shares.charge(first, estimate)
        shares.charge(first, tokens - estimate)
        done[first] += tokens
        assert max(done.values()) - min(done.values()) <= 2 * max(largest)

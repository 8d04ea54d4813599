"""Loads, troubles and the optimum, against arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.goodput.scenario import (
    LIGHT,
    QUICK,
    SCENARIOS,
    SLO_S,
    Arrival,
    EngineKind,
    Scenario,
    Trouble,
    arrivals,
    possible,
)

CAPACITY = 300.0


def scenario(*load: tuple[float, float], troubles: tuple[Trouble, ...] = ()) -> Scenario:
    return Scenario("x", "x", 100.0, load, EngineKind(), troubles)


def even(load: float, duration_s: float = 100.0) -> list[Arrival]:
    """One request every tenth of a second."""
    tokens = round(load * CAPACITY / 10)
    return [Arrival(n / 10, "", tokens) for n in range(int(duration_s * 10))]


@pytest.mark.parametrize("seed", range(3))
def test_arrivals_offer_what_was_asked(seed: int) -> None:
    burst = scenario((0.0, 0.5), (50.0, 2.0))
    drawn = arrivals(burst, CAPACITY, seed)
    assert drawn == arrivals(burst, CAPACITY, seed)
    for from_s, load in burst.load:
        tokens = sum(a.output_tokens for a in drawn if from_s <= a.at_s < from_s + 50)
        assert tokens / 50 / CAPACITY == pytest.approx(load, rel=0.2)


def test_a_second_tenant_asks_beside_the_first() -> None:
    alone = scenario((0.0, 1.5))
    both = arrivals(replace(alone, light_load=0.3), CAPACITY, 1)
    assert [a for a in both if not a.tenant] == arrivals(alone, CAPACITY, 1)
    light = sum(a.output_tokens for a in both if a.tenant == LIGHT)
    assert light / 100 / CAPACITY == pytest.approx(0.3, rel=0.2)
    assert both == sorted(both, key=lambda a: a.at_s)


def test_no_two_prompts_are_the_same() -> None:
    drawn = arrivals(scenario((0.0, 1.0)), CAPACITY, 1)
    assert len({request.prompt for request in drawn}) == len(drawn)


@pytest.mark.parametrize(
    ("load", "troubles", "share"),
    [
        (0.5, (), 0.5),
        (2.0, (), 1.0),
        (1.0, (Trouble(20, 60, {}),), 0.8),  # half is gone for 40 of 100 s
        (1.0, (Trouble(20, 60, {}, 0.2),), 0.84),  # a fifth of that half is left
        (0.4, (Trouble(20, 60, {}),), 0.4),  # the other one suffices
        # Away for 20 and 10 s, at a fifth for 10 s: (30 + 0.8 * 10) / 2 of 100 s are lost.
        (1.0, (Trouble(20, 40, {}, cold_s=10),), 0.81),
    ],
)
def test_possible(load: float, troubles: tuple[Trouble, ...], share: float) -> None:
    story = scenario((0.0, load), troubles=troubles)
    assert possible(story, even(load), CAPACITY) == pytest.approx(share, abs=0.005)


def test_possible_keeps_a_backlog_no_longer_than_it_is_useful() -> None:
    twice_then_none = [request for request in even(2.0) if request.at_s < 50]
    share = possible(scenario((0.0, 2.0)), twice_then_none, CAPACITY)
    assert share == pytest.approx((50 + SLO_S) / 100, abs=0.005)


def test_shortening_keeps_the_story() -> None:
    story = scenario((0.0, 0.5), (50.0, 2.0), troubles=(Trouble(20, 40, {}, cold_s=10),))
    half = story.shortened(0.5)
    assert half.load_at(25.0) == story.load_at(50.0)
    for tenth in range(1000):
        at_s = tenth / 10
        assert half.capacity_at(0, at_s / 2) == story.capacity_at(0, at_s)


def test_every_scenario_makes_sense() -> None:
    assert len({story.name for story in SCENARIOS}) == len(SCENARIOS)
    assert {name for name, _ in QUICK} <= {story.name for story in SCENARIOS}
    for story in SCENARIOS:
        assert story.load[0][0] == 0.0
        assert all(trouble.healthy_again_s < story.duration_s for trouble in story.troubles)

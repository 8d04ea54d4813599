"""Whole runs of the virtual-time world: the same seed is the same run, and another one is not."""

from __future__ import annotations

import pathlib

import pytest

from sim.world.scenario import load
from sim.world.world import World

SCENARIOS = sorted((pathlib.Path(__file__).parent / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_seed_is_a_run(path: pathlib.Path) -> None:
    scenario = load(path)
    one, again, other = (World(scenario, "trimtab", seed).run() for seed in (1, 1, 2))
    assert one.trace.digest() == again.trace.digest()
    assert one.metrics == again.metrics
    assert one.trace.digest() != other.trace.digest()

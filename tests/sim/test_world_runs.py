"""Whole runs: the same seed is the same run wherever it runs, and another one is not."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

from sim.world.grid import Task, run, scenarios
from sim.world.scenario import load
from sim.world.world import World

FOLDER = pathlib.Path(__file__).parent / "scenarios"


@pytest.mark.parametrize("policy", ["trimtab", "litellm", "envoy", "bounded"])
def test_a_seed_is_a_run(policy: str) -> None:
    scenario = load(FOLDER / "kill.yaml")
    one, again, other = (World(scenario, policy, seed).run() for seed in (1, 1, 2))
    assert one.trace.digest() == again.trace.digest()
    assert one.metrics == again.metrics
    assert one.trace.digest() != other.trace.digest()


def test_a_seed_is_a_run_in_any_process() -> None:
    command = [sys.executable, "-m", "sim", "--scenario", str(FOLDER / "steady.yaml")]
    here = World(load(FOLDER / "steady.yaml"), "trimtab", 3).run()
    done = subprocess.run(
        [*command, "--seed", "3"], capture_output=True, check=True, text=True, timeout=50
    )
    assert f"trace {here.trace.digest()}" in done.stdout


def test_the_grid_runs_all_seeds_of_all_its_scenarios() -> None:
    found = scenarios(FOLDER)
    assert 10 <= len(found) < len(scenarios(FOLDER, all_of_them=True))
    (cell,) = run([Task("steady", found["steady"], "trimtab", seed) for seed in (1, 2)], workers=1)
    assert [outcome.seed for outcome in cell.outcomes] == [1, 2]
    assert cell.low("goodput_60") <= cell.mean("goodput_60") <= cell.high("goodput_60")


def test_the_grid_is_the_same_on_several_cores(tmp_path: pathlib.Path) -> None:
    # as a process: multiprocessing leaves a helper running for as long as its parent lives
    _ = shutil.copy(FOLDER / "steady.yaml", tmp_path)
    command = [sys.executable, "-m", "sim", "grid", "--seeds", "2", "--scenarios", str(tmp_path)]
    said = {
        subprocess.run(
            [*command, "--workers", workers], capture_output=True, check=True, text=True, timeout=50
        ).stdout
        for workers in ("1", "2")
    }
    assert len(said) == 1
    assert "steady" in said.pop()


def test_policies_meet_the_same_requests() -> None:
    scenario = load(FOLDER / "overload.yaml")
    worlds = [World(scenario, policy, 5) for policy in ("trimtab", "shuffle")]
    for world in worlds:
        world.run()
    ours, theirs = ([(j.arrived_s, j.output_tokens) for j in world.jobs] for world in worlds)
    assert ours == theirs

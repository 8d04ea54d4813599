"""Every scenario against its golden trace: what was decided, in the order in which it was.

TRIMTAB_GOLDEN=write rewrites the files; review the difference like any other change: it is how a
change of policy shows.
"""

from __future__ import annotations

import os
import pathlib

import pytest

from sim.world.scenario import load
from sim.world.world import Result, World

SCENARIOS = sorted((pathlib.Path(__file__).parent / "scenarios").glob("*.yaml"))
SEED = 1


def transcript(about: str, result: Result) -> str:
    """A run as a reader sees it; figures are cut to what a reader would notice."""
    figures = result.metrics
    lines = [
        about,
        f"goodput 60 s {figures.goodput_60:.2f}, 15 s {figures.goodput_15:.2f}"
        f" of {figures.offered:.2f} offered",
        f"first token p50 {figures.ttft_p50_s:.1f} s, p99 {figures.ttft_p99_s:.0f} s",
        f"refused {figures.refused}, failed {figures.failed}, broken {figures.broken},"
        f" attempts per job {figures.attempts_per_job:.2f}",
        *(f"violated: {name}" for name, found in result.violations.items() if found),
        "",
        *result.trace.lines,
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_goes_as_before(path: pathlib.Path) -> None:
    scenario = load(path)
    result = World(scenario, "trimtab", SEED).run()
    text = transcript(scenario.about, result)
    golden = path.with_suffix(".txt")
    if os.environ.get("TRIMTAB_GOLDEN") == "write":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_golden_trace_has_its_scenario() -> None:
    folder = SCENARIOS[0].parent
    assert {path.stem for path in folder.glob("*.txt")} == {path.stem for path in SCENARIOS}

"""The tables, the targets and the command line of the simulated fleet."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import pytest

from sim.__main__ import main
from sim.world import compare, report
from sim.world.grid import Cell, Outcome, light, missed
from sim.world.metrics import Metrics
from sim.world.scenario import Scenario, SourceSpec, Targets

FIGURES = Metrics(
    offered=2.0,
    goodput_60=0.9,
    goodput_15=0.5,
    ttft_p50_s=1.0,
    ttft_p90_s=2.0,
    ttft_p99_s=3.0,
    done=10,
    refused=4,
    failed=0,
    broken=1,
    attempts_per_job=1.5,
    attempts_max=3,
    wasted_ratio=0.1,
    cai=1.0,
    ppi=0.0,
    ppi2=0.0,
    flips=0.0,
    jain=1.0,
    ttr_s=40.0,
    tenants={"flood": 0.1, "light": 0.8},
)
SMALL = "{about: x, duration_s: 9, warmup_s: 4, grid: true, sources: [{load: 0.5}]}"


def cell(label: str = "burst", policy: str = "trimtab", **violated: str) -> Cell:
    figures = [replace(FIGURES, goodput_60=0.8 + 0.1 * k) for k in range(3)]
    outcomes = [
        Outcome(label, policy, k + 1, f, ("i2_a", "i10_b"), violated if k == 1 else {}, "0")
        for k, f in enumerate(figures)
    ]
    return Cell(label, policy, tuple(outcomes))


def test_a_cell_sums_its_seeds_up() -> None:
    assert cell().mean("goodput_60") == pytest.approx(0.9)
    assert (cell().low("goodput_60"), cell().high("goodput_60")) == (0.8, 1.0)
    assert light(cell()) == pytest.approx(0.8)
    assert [o.seed for o in cell(i2_a="bad").violations()["i2_a"]] == [2]


@pytest.mark.parametrize(
    ("targets", "short"),
    [
        (Targets(), []),
        (Targets(goodput_60=0.89, goodput_15=0.5, attempts_per_job=1.5, ttr_s=40.0), []),
        (Targets(goodput_60=0.98, ttr_s=30.0), ["goodput_60 0.90 < 0.98", "ttr_s 40.00 > 30.0"]),
        (Targets(light_tenant=0.97), ["light tenant 0.80 < 0.97"]),
    ],
)
def test_targets(targets: Targets, short: list[str]) -> None:
    assert missed(cell(), targets) == short
    scenario = Scenario(about="x", duration_s=9, sources=(SourceSpec(load=1.0),), targets=targets)
    words = [f"burst: {'; '.join(short)}"] if short else []
    assert report.shortfalls([cell(), cell(policy="envoy")], {"burst": scenario}) == words


def test_tables() -> None:
    cells = [cell(), cell(policy="envoy", i10_b="something bad")]
    rows = report.scenarios(cells).splitlines()
    assert len(rows) == 4
    assert rows[3].startswith("| burst | envoy | 2.00 | 0.90 | 0.50 | 1.0 | 3.0 | 4 | 0 | 1 |")
    laws = report.laws(cells).splitlines()
    assert laws[2:] == ["| i2 a | 6 | 0 |  |", "| i10 b | 6 | 1 | burst seed 2: something bad |"]
    assert report.tenants(cells).splitlines()[-1] == "| envoy | 0.80 |"


def test_the_curve_has_a_row_for_each_policy_and_a_column_for_each_load() -> None:
    tasks = list(compare.CURVES[0].tasks(seeds=1))
    cells = [cell(task.label, task.policy) for task in tasks]
    rows = report.curve(cells, compare.row_labels()).splitlines()
    assert rows[0] == "|  | 0.8x | 1x | 1.2x | 1.5x | 2x | 3x |"
    assert rows[2] == "| trimtab, 1 edge | " + " | ".join(["0.90 / 0.50"] * 6) + " |"
    assert [row.split(" |")[0] for row in rows[3:6]] == [
        *("| trimtab, 4 edges", "| trimtab, 8 edges"),
        "| litellm",
    ]


def test_the_command_runs_a_scenario_and_a_grid(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    assert main(["--scenario", str(path), "--trace"]) == 0
    shown = capsys.readouterr().out
    assert "edge connected e0" in shown
    assert '"goodput_60"' in shown
    assert "i18_accounts_are_right: holds" in shown
    assert main(["grid", "--seeds", "2", "--workers", "1", "--scenarios", str(tmp_path)]) == 0
    assert "| small | trimtab |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [([], "which scenario?"), (["--scenario", "/nowhere.yaml"], "No such file")],
)
def test_mistakes_are_one_sentence(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 64
    assert words in capsys.readouterr().err

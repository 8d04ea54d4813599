"""Dashboards are what Grafana imports, and nothing in the generated folder was made by hand."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections import Counter

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.files import BOARDS
from monitoring.panels import Board, build

ROOT = pathlib.Path(__file__).parents[3]
BUILT_IN = {"timeseries", "stat", "state-timeline", "heatmap", "row"}
EVERY = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
GRID = 24


def test_the_generated_files_are_fresh() -> None:
    script = [sys.executable, "-m", "docs.generate_monitoring", "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_there_are_eight() -> None:
    assert len({board.uid for board in BOARDS}) == 8


@EVERY
def test_grafanas_own_model_reads_it_back(board: Board) -> None:
    read = json.loads(build(board))
    again = json.loads(json.dumps(Dashboard.from_json(read), cls=JSONEncoder))
    assert again == read


@EVERY
def test_panels_stand_beside_each_other(board: Board) -> None:
    panels = json.loads(build(board))["panels"]
    assert max(Counter(panel["id"] for panel in panels).values()) == 1
    cells = Counter(
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    )
    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) < GRID


@EVERY
def test_everything_comes_from_the_chosen_source(board: Board) -> None:
    page = json.loads(build(board))
    variables = {variable["name"] for variable in page["templating"]["list"]}
    for panel in page["panels"]:
        assert panel["type"] in BUILT_IN
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            asked = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert asked <= variables

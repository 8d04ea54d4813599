"""The processes of a fleet and their arguments."""

from __future__ import annotations

import pathlib

from standalone import fleet
from standalone.state import State
from trimtab.runtime.config import Config, EdgeLimits

PLACE = State(pathlib.Path("/s"))


def test_services_in_order_and_where_they_meet() -> None:
    specs = fleet.services(PLACE, Config(listen="127.0.0.1:1", admin="127.0.0.1:2"))
    lines = [" ".join(spec.argv[1:]) for spec in specs]
    assert lines == [
        "-P -m controlplane --config /s/run/trimtab.json --listen unix:/s/control.sock"
        " --store /s/trimtab.db",
        "-P -m agent --config /s/run/trimtab.json --controlplane unix:/s/control.sock",
        "-P -m edge --config /s/run/trimtab.json --controlplane unix:/s/control.sock"
        " --listen 127.0.0.1:1 --admin 127.0.0.1:2 --state /s",
    ]


def test_several_edges_on_one_port() -> None:
    specs = fleet.services(PLACE, Config(edge=EdgeLimits(workers=3)))[2:]
    assert [spec.name for spec in specs] == ["edge-1", "edge-2", "edge-3"]
    assert [spec.argv[-2:] for spec in specs] == [("--worker", n) for n in "123"]


def test_simulated_engines_match_what_the_configuration_says_of_them() -> None:
    engines, specs = fleet.demo_engines([7001, 7002]), fleet.demo([7001, 7002])
    assert [(e.name, e.url) for e in engines] == [
        ("demo-1", "http://127.0.0.1:7001"),
        ("demo-2", "http://127.0.0.1:7002"),
    ]
    assert [spec.name for spec in specs] == ["demo-1", "demo-2"]
    assert specs[1].argv[1:] == (
        *("-P", "-m", "sim.engine_http", "--port", "7002"),
        *("--served-model-name", "demo", "--max-num-seqs", "16"),
    )

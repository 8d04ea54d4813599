"""Draining an edge: with all its workers, and only empty when it says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctl import edges
from ctl.exits import Exit
from ctl.main import main
from tests.fakes.admin import FakeAdmin
from tests.fakes.fleet import FLEET
from trimtab.steered import Override, OverrideKind
from trimtab.views import EdgeView, Fleet

THREE = Fleet(edges=(EdgeView("e1"), EdgeView("e1:2"), EdgeView("e2")))


@pytest.mark.parametrize(("name", "found"), [("e1", ["e1", "e1:2"]), ("e1:2", ["e1:2"])])
def test_workers_are_drained_together(name: str, found: list[str]) -> None:
    assert edges.find(THREE, name) == found


def test_what_is_set_for_an_edge_that_left_can_be_ended() -> None:
    gone = replace(THREE, overrides=(Override(OverrideKind.EDGE_DRAIN, "e9"),))
    assert edges.find(gone, "e9", drained=True) == ["e9"]


@pytest.mark.parametrize(
    ("edge", "said"),
    [
        (EdgeView("e1", inflight=3, queued=1, report_age_ms=10), "e1: 3 in flight, 1 queued"),
        (EdgeView("e1"), "e1 to confirm"),
        (EdgeView("e1", report_age_ms=600), "e1 to confirm"),
        (EdgeView("e1", report_age_ms=400), ""),
        (EdgeView("e2", inflight=3), ""),
    ],
)
def test_busy(edge: EdgeView, said: str) -> None:
    assert edges.busy(Fleet(edges=(edge,)), ["e1"], settled_ms=500.0) == said


def test_a_drain_ends_when_the_edge_is_empty(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    idle = replace(FLEET.edges[0], inflight=0, queued=0, report_age_ms=0)
    admin.show(replace(FLEET, edges=(idle, FLEET.edges[1])))
    assert main(["-s", admin.target, "drain", "edge", "edge-a", "--yes"]) == Exit.OK
    streams = capsys.readouterr()
    assert streams.out.startswith("edge-a: draining (revision 413)\nedge-a: empty after ")
    assert "Undo: ctl uncordon edge edge-a" in streams.err
    (sent,) = admin.steer.overrides
    assert (sent.target, sent.for_ms) == ("edge-a", edges.DAY_MS)

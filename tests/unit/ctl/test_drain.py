"""A drain ends only when every edge said so after the replica was closed."""

from __future__ import annotations

from dataclasses import replace

from ctl.drain import PUSH_GRACE_S, DrainWatch
from tests.fakes.fleet import GPU0
from trimtab.model import Serving
from trimtab.views import EdgeView, Fleet

CLOSED = replace(GPU0, route=replace(GPU0.route, serving=Serving.CLOSED), inflight=0)


def fleet(inflight: int, *report_ages_ms: int | None) -> Fleet:
    """A closed replica and edges that last reported so long ago."""
    edges = tuple(EdgeView(f"e{i}", report_age_ms=age) for i, age in enumerate(report_ages_ms))
    return Fleet(replicas=(replace(CLOSED, inflight=inflight),), edges=edges)


def test_open_replica_is_waited_for_and_restarts_the_count() -> None:
    watch = DrainWatch("gpu0")
    still_open = replace(fleet(0, 0), replicas=(replace(GPU0, inflight=0),))
    assert watch.step(still_open, 100.0) == "the control plane to close it"
    assert watch.step(fleet(0, 0), 101.0)
    assert watch.step(still_open, 102.0)
    assert watch.step(fleet(0, 0), 103.0) == "edges to confirm: e0"


def test_in_flight_is_told() -> None:
    assert DrainWatch("gpu0").step(fleet(7, 0), 100.0) == "7 in flight"


def test_a_zero_from_before_the_push_is_not_believed() -> None:
    watch = DrainWatch("gpu0")
    watch.step(fleet(3, 0), 100.0)
    settled_s = 100.0 + PUSH_GRACE_S + 0.5
    assert watch.step(fleet(0, 500, 100), settled_s) == "edges to confirm: e0"
    assert watch.step(fleet(0, 499, 100), settled_s) == ""


def test_silent_edge_and_no_edge_are_named() -> None:
    watch = DrainWatch("gpu0")
    watch.step(fleet(0, 0), 100.0)
    assert watch.step(fleet(0, None), 200.0) == "edges to confirm: e0"
    assert "none is connected" in watch.step(fleet(0), 200.0)


def test_a_control_plane_that_forgot_the_replica_proves_nothing() -> None:
    watch = DrainWatch("gpu0")
    assert watch.step(replace(fleet(0, 0), replicas=()), 100.0) == "its agent to report it again"

"""Edges as the registry knows them."""

from __future__ import annotations

import pytest

from controlplane.core import edges as edges_module
from controlplane.core.edges import Edges
from controlplane.core.events import EndStream
from controlplane.core.replica import Replica
from trimtab.model import EdgeHello, EdgeReport, Outcome, OutcomeCount, PoolUse, ReplicaUse


def test_one_stream_an_edge() -> None:
    edges = Edges()
    edges.hello(1, EdgeHello("e1", instance="a"), 100.0)
    text = "another edge is called e1; give each its own name"
    assert edges.hello(2, EdgeHello("e1", instance="b"), 103.0) == [EndStream(2, text)]
    assert edges.hello(1, EdgeHello("e1"), 100.0) == [EndStream(1, "a stream has one EdgeHello")]
    assert edges.gone(2) == []


@pytest.mark.parametrize(("instance", "now_s"), [("a", 100.1), ("b", 103.1)])
def test_the_same_edge_or_one_after_a_dead_one_takes_over(instance: str, now_s: float) -> None:
    edges = Edges()
    edges.hello(1, EdgeHello("e1", instance="a"), 100.0)
    effects = edges.hello(2, EdgeHello("e1", instance=instance), now_s)
    assert effects[0] == EndStream(1, "the same edge has a newer stream")
    assert edges.gone(1) == []
    assert edges.by_name["e1"].stream == 2


def test_edges_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges_module, "EDGE_LIMIT", 1)
    edges = Edges()
    edges.hello(1, EdgeHello("e1"), 100.0)
    assert edges.hello(2, EdgeHello("e2"), 100.0) == [EndStream(2, "there are 1 edges already")]


def test_only_what_is_known_is_kept_and_counted() -> None:
    edges = Edges()
    replica = Replica("r1", "http://h:1", known_since_s=0.0)
    edges.hello(1, EdgeHello("e1", edge_version="v" * 999), 100.0)
    outcomes = tuple(OutcomeCount(outcome, 1) for outcome in Outcome)
    report = EdgeReport(
        1,
        (ReplicaUse("r1", dispatched=8, outcomes=outcomes), ReplicaUse("who?")),
        (PoolUse("m", requests=3, shed=1), PoolUse("who?", requests=9)),
    )
    assert edges.report(1, report, {"r1": replica}, {"m"}, 101.0) == []

    edge = edges.by_name["e1"]
    assert (set(edge.uses), set(edge.pools)) == ({"r1"}, {"m"})
    assert len(edge.hello.edge_version) == 300
    assert dict(replica.minute.totals(101.0)) == {"dispatched": 8, "failures": 3, "overloads": 1}
    assert dict(edge.minute.totals(101.0)) == {("requests", "m"): 3, ("shed", "m"): 1}

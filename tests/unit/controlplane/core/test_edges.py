"""Edges as the registry knows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import edges as edges_module
from controlplane.core.bounds import INFLIGHT_LIMIT
from controlplane.core.edges import Edges
from controlplane.core.events import EndStream
from controlplane.core.replica import Replica
from trimtab.model import (
    EdgeHello,
    EdgeReport,
    Outcome,
    OutcomeCount,
    PoolUse,
    ReplicaUse,
    SteadyUse,
    TenantUse,
    Urgency,
)
from trimtab.policy.limits import Limit


def test_one_stream_an_edge() -> None:
    edges = Edges()
    edges.hello(1, EdgeHello("e1", instance="a"), 100.0)
    text = "another edge is called e1; give each its own name"
    assert edges.hello(2, EdgeHello("e1", instance="b"), 103.0) == [EndStream(2, text)]
    assert edges.hello(1, EdgeHello("e1"), 100.0) == [EndStream(1, "a stream has one EdgeHello")]
    assert edges.gone(2, 1.0) == []


@pytest.mark.parametrize(("instance", "now_s"), [("a", 100.1), ("b", 103.1)])
def test_the_same_edge_or_one_after_a_dead_one_takes_over(instance: str, now_s: float) -> None:
    edges = Edges()
    edges.hello(1, EdgeHello("e1", instance="a"), 100.0)
    effects = edges.hello(2, EdgeHello("e1", instance=instance), now_s)
    assert effects[0] == EndStream(1, "the same edge has a newer stream")
    assert edges.gone(1, 1.0) == []
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
        (
            ReplicaUse("r1", inflight=2, dispatched=8, outcomes=outcomes),
            ReplicaUse("r2"),
            ReplicaUse("who?", inflight=3),
        ),
        (PoolUse("m", requests=3, shed=1), PoolUse("who?", requests=9)),
    )
    assert edges.report(1, report, {"r1": replica, "r2": replica}, {"m"}, 101.0) == []

    edge = edges.by_name["e1"]
    assert (edge.inflight, set(edge.pools)) == ({"r1": 2}, {"m"})
    assert len(edge.hello.edge_version) == 300
    assert dict(replica.minute.totals(101.0)) == {"dispatched": 8, "failures": 3, "overloads": 1}
    assert dict(edge.minute.totals(101.0)) == {("requests", "m"): 3, ("shed", "m"): 1}


@pytest.mark.parametrize(
    "report",
    [
        EdgeReport(1, (ReplicaUse("r1", 2**31, tokens=9), ReplicaUse("r2", 1), ReplicaUse("x", 1))),
        EdgeReport(1, steady=SteadyUse(("r1", "r2", "x"), (2**31, 1, 1), (9, 0, 3))),
        EdgeReport(
            1, (ReplicaUse("r2", 1),), steady=SteadyUse(("r2", "r1", "x"), (8, 2**31), (0, 9))
        ),
    ],
)
def test_steady_use_as_entries_and_as_columns(report: EdgeReport) -> None:
    edges = Edges()
    replicas = {name: Replica(name, "http://h:1", known_since_s=0.0) for name in ("r1", "r2")}
    edges.hello(1, EdgeHello("e1"), 100.0)
    assert edges.report(1, report, replicas, set(), 101.0) == []
    assert edges.by_name["e1"].inflight == {"r1": INFLIGHT_LIMIT, "r2": 1}
    assert edges.inflight("r2") == 1
    assert [edges.tokens_at_s(name) for name in ("r1", "r2", "x")] == [101.0, None, None]


_USES = st.dictionaries(st.sampled_from(["r1", "r2", "x"]), st.integers(0, 3))


@given(st.lists(st.tuples(st.integers(1, 2), _USES, _USES), max_size=8))
def test_what_runs_on_a_replica_is_what_the_newest_reports_add_up_to(
    told: list[tuple[int, dict[str, int], dict[str, int]]],
) -> None:
    edges, newest = Edges(), dict[int, dict[str, int]]()
    replicas = {name: Replica(name, "http://h:1", known_since_s=0.0) for name in ("r1", "r2")}
    for stream in (1, 2):
        edges.hello(stream, EdgeHello(f"e{stream}"), 100.0)
    for seq, (stream, columns, entries) in enumerate(told, 1):
        steady = SteadyUse(tuple(columns), tuple(columns.values()), (0,) * len(columns))
        uses = tuple(ReplicaUse(name, inflight=number) for name, number in entries.items())
        assert edges.report(stream, EdgeReport(seq, uses, steady=steady), replicas, (), 100.0) == []
        newest[stream] = columns | {name: number for name, number in entries.items() if number}
        for name in replicas:
            assert edges.inflight(name) == sum(one.get(name, 0) for one in newest.values())
    for stream in (1, 2):
        edges.gone(stream, 1.0)
    assert [edges.inflight(name) for name in replicas] == [0, 0]


def test_charges_add_up_until_they_are_taken() -> None:
    edges = Edges()
    edges.hello(1, EdgeHello("e1"), 100.0)
    for seq in (1, 2):
        uses = (TenantUse("t", Urgency.UNSPECIFIED, charged_work=5.0),)
        edges.report(1, EdgeReport(seq, (), (PoolUse("m", tenants=uses),)), {}, {"m"}, 101.0)
    assert edges.by_name["e1"].charged == {"m": {(Urgency.DEFAULT, "t"): 10.0}}


def test_the_moment_when_requests_begin_to_wait_is_noticed() -> None:
    edges = Edges()
    edges.hello(1, EdgeHello("e1"), 100.0)
    seen = []
    for seq, queued in enumerate((0, 3, 9, 0, 1)):
        edges.report(1, EdgeReport(seq, (), (PoolUse("m", queued),)), {}, {"m"}, 101.0)
        seen.append(edges.waits)
    assert seen == [0, 1, 1, 1, 2]


def test_a_replica_that_refuses_is_given_less() -> None:
    edges, replica = Edges(), Replica("r1", "http://h:1", known_since_s=0.0)
    replica.load.limit = Limit(96)
    edges.hello(1, EdgeHello("e1"), 100.0)
    use = ReplicaUse("r1", inflight=7, outcomes=(OutcomeCount(Outcome.OVERLOAD, 3),))
    edges.report(1, EdgeReport(1, (use,)), {"r1": replica}, (), 101.0)
    assert replica.load.slots(96, 101.0) == pytest.approx(95.0)
    assert edges.inflight("r1") == 7
    assert edges.inflight("r2") == 0

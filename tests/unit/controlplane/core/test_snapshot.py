"""What edges are pushed, and the check before it."""

from __future__ import annotations

import pytest

from controlplane.core.replica import Replica
from controlplane.core.snapshot import build, faults
from trimtab.model import ApiKey, EdgePolicy, Pool, Route, Snapshot


def replica(name: str, pool: str) -> Replica:
    known = Replica(name, "http://h:1", known_since_s=0.0)
    known.route = route(name, pool)
    return known


def route(name: str, pool: str) -> Route:
    return Route(name, pool, "n", "http://h:1", "m")


def test_build_is_in_order_and_complete() -> None:
    unseen = Replica("r0", "http://h:1", known_since_s=0.0)
    snapshot = build(
        [replica("r2", "found"), replica("r1", "big"), replica("r3", ""), unseen],
        [Pool("small"), Pool("big", ("gpt",))],
        [ApiKey(b"b", "second"), ApiKey(b"a", "first")],
        EdgePolicy(queue_limit=7),
    )
    assert snapshot == Snapshot(
        pools=(Pool("big", ("gpt",)), Pool("found"), Pool("small")),
        routes=(route("r1", "big"), route("r2", "found")),
        keys=(ApiKey(b"a", "first"), ApiKey(b"b", "second")),
        policy=EdgePolicy(queue_limit=7),
    )
    assert faults(snapshot) == []


@pytest.mark.parametrize(
    ("snapshot", "found"),
    [
        (Snapshot(pools=(Pool("a"), Pool("a"))), ["'a' names two pools"]),
        (Snapshot(pools=(Pool("a", ("b",)), Pool("b"))), ["'b' names two pools"]),
        (
            Snapshot(pools=(Pool("a"),), routes=(route("r", "a"), route("r", "a"))),
            ["'r' names two replicas"],
        ),
        (Snapshot(routes=(route("r", "a"),)), ["replica 'r' is in no pool, 'a'"]),
        (Snapshot(keys=(ApiKey(b"\1", "x"), ApiKey(b"\1", "y"))), ["key 01 is there twice"]),
    ],
)
def test_faults(snapshot: Snapshot, found: list[str]) -> None:
    assert faults(snapshot) == found

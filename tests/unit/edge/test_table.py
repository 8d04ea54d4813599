"""edge/core/table: only newer, only consistent, or nothing changes."""

from __future__ import annotations

from dataclasses import replace

from edge.core.table import RoutingTable
from trimtab.model import (
    ApiKey,
    Credit,
    Credits,
    Delta,
    EdgeUpdate,
    Pool,
    Route,
    Serving,
    Snapshot,
)

ROUTE = Route("r0", "m", "n", "http://h:1", "m", Serving.OPEN)
SNAPSHOT = Snapshot(
    pools=(Pool("m", ("alias",)),), routes=(ROUTE,), keys=(ApiKey(b"k" * 32, "key"),)
)
CREDITS = Credits((Credit("r0", 8),))


def update(term: int, version: int, body: Snapshot | Delta | Credits) -> EdgeUpdate:
    return EdgeUpdate(term, version, version, body)


def loaded() -> RoutingTable:
    table = RoutingTable()
    assert table.apply(update(2, 1, SNAPSHOT)) == ""
    return table


def test_look_ups() -> None:
    table = loaded()
    assert {name: target.pool.name for name, target in table.targets.items()} == {
        "m": "m",
        "alias": "m",
    }
    assert table.routes("m") == (ROUTE,)
    assert table.routes("nope") == ()
    key = table.key(b"k" * 32)
    assert key is not None
    assert key.name == "key"
    assert table.key(b"x" * 32) is None


def test_older_terms_and_versions_are_refused() -> None:
    table = loaded()
    for term, version in [(1, 99), (2, 1), (2, 0)]:
        assert "stale" in table.apply(update(term, version, SNAPSHOT))
    assert (table.term, table.version) == (2, 1)
    assert table.apply(update(3, 1, SNAPSHOT)) == ""


def test_a_new_term_must_open_with_a_snapshot() -> None:
    table = loaded()
    assert "must open with a snapshot" in table.apply(update(3, 1, CREDITS))
    assert "must open with a snapshot" in table.apply(update(3, 2, Delta(base_version=1)))
    assert table.credits == {}


def test_a_delta_applies_on_its_base_only() -> None:
    table = loaded()
    closed = replace(ROUTE, serving=Serving.CLOSED)
    assert "delta on version 7" in table.apply(update(2, 8, Delta(7, routes=(closed,))))
    assert table.apply(update(2, 9, CREDITS)) == ""
    assert table.apply(update(2, 10, Delta(1, routes=(closed,)))) == ""
    assert table.routes("m") == (closed,)
    assert table.apply(update(2, 11, Delta(10, routes_gone=("r0",)))) == ""
    assert table.routes("m") == ()


def test_inconsistent_states_change_nothing() -> None:
    table = loaded()
    orphan = replace(ROUTE, pool="elsewhere")
    assert "without a pool: r0" in table.apply(update(2, 2, Delta(1, routes=(orphan,))))
    twice = replace(SNAPSHOT, routes=(ROUTE, ROUTE))
    assert "two routes" in table.apply(update(2, 3, twice))
    assert table.snapshot == SNAPSHOT


def test_restoring_from_disk_yields_to_any_push_of_the_same_term() -> None:
    table = RoutingTable()
    table.restore(5, SNAPSHOT, CREDITS)
    assert table.ready
    assert table.credits["r0"].slots == 8
    assert table.apply(update(5, 1, SNAPSHOT)) == ""
    table.restore(9, Snapshot(), Credits())
    assert table.term == 5

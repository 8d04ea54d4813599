"""edge/core/dispatch: requests that only some replicas of a pool can run."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from edge.core.dispatch import LOOK_AHEAD, Dispatch
from edge.core.table import RoutingTable
from trimtab.model import (
    Credit,
    Credits,
    EdgeUpdate,
    Outcome,
    Pool,
    PoolPace,
    Route,
    Serving,
    Snapshot,
)
from trimtab.policy.queue import Ticket

POOL = "m"


class Fleet:
    """Replica r0 has the adapter, r1 has not; each has room for one request."""

    def __init__(self) -> None:
        self.table = RoutingTable()
        self.dispatch = Dispatch(self.table, random.Random(0))
        self.version = 0
        self.push({"r0": ("sql",), "r1": ()})

    def push(self, adapters: Mapping[str, tuple[str, ...]]) -> None:
        routes = (
            Route(name, POOL, "n", "u", "m", Serving.OPEN, adapters=has)
            for name, has in adapters.items()
        )
        self.update(Snapshot((Pool(POOL),), tuple(routes)))
        self.update(Credits(tuple(Credit(name, 1) for name in adapters)))

    def update(self, body: Snapshot | Credits) -> None:
        self.version += 1
        assert self.table.apply(EdgeUpdate(1, self.version, 0, body)) == ""
        self.dispatch.hear(0.0)

    def offer(self, number: int, adapter: str = "", work: float = 1.0, only: str = "") -> bool:
        ticket = Ticket(number, since_s=float(number), work=work, adapter=adapter, only=only)
        return self.dispatch.offer(POOL, ticket, float(number)) is None

    def placed(self, now_s: float = 0.0) -> dict[int, str]:
        self.last = list(self.dispatch.place(now_s))
        return {placed.ticket.number: placed.route.replica for placed in self.last}


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_an_adapters_request_goes_only_where_it_is(fleet: Fleet) -> None:
    for number in range(3):
        assert fleet.offer(number, "sql")
    assert fleet.placed() == {0: "r0"}
    assert [c.replica for c in fleet.last[0].among] == ["r0"]


def test_it_blocks_nobody_behind_it_however_many_there_are(fleet: Fleet) -> None:
    for number in range(2 * LOOK_AHEAD + 1):
        assert fleet.offer(number, "sql")
    assert fleet.offer(99)
    assert fleet.placed() == {0: "r0", 99: "r1"}


def test_it_does_not_starve_behind_those_who_can_go_anywhere(fleet: Fleet) -> None:
    assert fleet.offer(0)
    assert fleet.offer(1)
    first = fleet.placed()
    assert set(first) == {0, 1}
    assert fleet.offer(2, "sql")
    for number in range(3, 9):
        assert fleet.offer(number)
    ended = next(placed for placed in fleet.last if placed.route.replica == "r0")
    fleet.dispatch.finish(ended, Outcome.OK, 1.0)
    assert fleet.placed() == {2: "r0"}


def test_those_who_wait_for_an_adapter_do_not_make_others_wait(fleet: Fleet) -> None:
    """Free room elsewhere is taken at once, however long the adapter's own line is."""
    fleet.dispatch.pool(POOL).queue.pool.hear(
        PoolPace(POOL, work_per_s=1.0), 1, fleet.dispatch.pool(POOL).queue.shares, 0.0
    )
    assert fleet.offer(0, "sql", work=1000.0)
    assert fleet.placed() == {0: "r0"}
    assert fleet.offer(1, "sql", work=1000.0) is True
    assert fleet.offer(2, "sql") is False, "its own line is too long"
    assert fleet.offer(3) is True
    assert fleet.placed() == {3: "r1"}


def test_the_wait_for_an_adapter_is_that_for_the_replicas_which_have_it(fleet: Fleet) -> None:
    """Half of the pool does ten a second: what waits for it takes twice as long."""
    queue = fleet.dispatch.pool(POOL).queue
    queue.pool.hear(PoolPace(POOL, work_per_s=20.0), 1, queue.shares, 0.0)
    for number in range(3):
        fleet.offer(number, "sql", work=100.0)
        fleet.placed()
    waits = {adapter: queue.wait_s(Ticket(9, 2.0, adapter=adapter), 2.0) for adapter in ("", "sql")}
    assert waits == {"": 10.0, "sql": 20.0}


def test_open_means_open_with_the_adapter(fleet: Fleet) -> None:
    assert fleet.dispatch.has_open(POOL, "sql")
    assert not fleet.dispatch.has_open(POOL, "de")
    fleet.push({"r1": ("de",)})
    assert not fleet.dispatch.has_open(POOL, "sql")
    assert fleet.dispatch.has_open(POOL)


def test_who_waits_for_what_is_gone_is_found(fleet: Fleet) -> None:
    for number, adapter in enumerate(("sql", "sql", "")):
        fleet.offer(number, adapter)
    fleet.placed()
    assert not list(fleet.dispatch.orphans())
    fleet.push({"r0": (), "r1": ("de",)})
    assert [ticket.number for _, ticket in fleet.dispatch.orphans()] == [1]


def test_who_is_bound_to_a_full_replica_holds_up_nobody(fleet: Fleet) -> None:
    for number in range(LOOK_AHEAD + 2):
        fleet.offer(number, only="r0")
    assert fleet.placed() == {0: "r0"}
    (first,) = fleet.last
    fleet.offer(100)
    assert fleet.placed() == {100: "r1"}
    assert fleet.placed() == {}
    fleet.dispatch.finish(first, Outcome.OK, 1.0)
    assert fleet.placed() == {1: "r0"}

"""What one edge believes of the fleet: from its table and its own accounts alone."""

from __future__ import annotations

import random
from array import array

import pytest

from edge.core.belief import Belief, Self
from edge.core.dispatch import Dispatch, Placement
from edge.core.table import RoutingTable
from trimtab.history import USES
from trimtab.model import (
    Credit,
    Credits,
    EdgeUpdate,
    Outcome,
    Pool,
    Route,
    Serving,
    Snapshot,
)
from trimtab.policy.autonomy import Mode
from trimtab.policy.queue import Ticket
from trimtab.verdict import Level

AT_S = 1_800_000_000.0
ME = Self("e1", "0.1.0", "http://e1:4000", 0.3)


class Edge:
    """Two replicas, r0 open and r1 closed; four slots each."""

    def __init__(self) -> None:
        self.table = RoutingTable()
        self.dispatch = Dispatch(self.table, random.Random(1))
        self.belief = Belief(self.table, self.dispatch, AT_S)

    def told(self, r1: Serving = Serving.CLOSED) -> Edge:
        """The control plane has spoken."""
        routes = (
            Route("r0", "m", "n", "http://h:1", "m", Serving.OPEN),
            Route("r1", "m", "n", "http://h:2", "m", r1, "cordoned by anna"),
        )
        self.table.apply(EdgeUpdate(1, 1, 1, Snapshot((Pool("m"),), routes)))
        credits_ = tuple(Credit(name, 4, 0.5, waiting=2, limit_slots=9) for name in ("r0", "r1"))
        self.table.apply(EdgeUpdate(1, 2, 2, Credits(credits_)))
        return self

    def ask(self, number: int, now_s: float = 0.0) -> list[Placement]:
        """A request comes; what could run then."""
        self.dispatch.offer("m", Ticket(number, now_s, tenant="lab"), now_s)
        return list(self.dispatch.place(now_s))


def test_its_fleet_is_what_it_was_told_and_its_own_traffic() -> None:
    edge = Edge().told()
    edge.belief.take(0.0, AT_S)
    for number in range(6):
        edge.ask(number)
    edge.belief.take(1.0, AT_S + 1)
    fleet = edge.belief.fleet(ME, 1.0)
    r0, r1 = fleet.replicas
    assert (r0.inflight, r0.limit_slots, r0.full_slots, r0.share_ratio) == (4, 4, 9, 1.0)
    assert (r1.limit_slots, r1.share_ratio) == (0, 0.0)
    (pool,) = fleet.pools
    assert (pool.open, pool.inflight, pool.queued, pool.requests_1m) == (1, 4, 2, 6)
    found = edge.belief.judge(fleet, ME, 1.0)
    assert (found.level, found.sentence) == (Level.DEGRADED, "1 of 2 replicas take requests")
    assert found.problems == ("replica r1: closed, cordoned by anna",)


def test_its_timeline_has_what_it_sent_and_what_it_doubts() -> None:
    edge = Edge().told(Serving.OPEN)
    edge.belief.take(0.0, AT_S)
    for number in range(3):
        edge.ask(number)
    edge.dispatch.replica("r1").suspicion.observe(Outcome.HARD, 1.0)
    edge.belief.take(1.5, AT_S + 1)
    view = edge.belief.history.view("15m")["replicas"]
    started = {name: array("I", track["started"])[-1] for name, track in view.items()}  # type: ignore[attr-defined]
    assert sum(started.values()) == 3
    assert USES[view["r1"]["use"][-1]] == "avoided"  # type: ignore[index]
    assert edge.belief.avoided(1.5) == {"r1"}
    assert edge.belief.avoided(60.0) == frozenset()


def test_reports_to_the_control_plane_take_nothing_from_it() -> None:
    edge = Edge().told()
    edge.belief.take(0.0, AT_S)
    edge.ask(1)
    edge.dispatch.report_replicas(0.5)
    edge.dispatch.report_pools(0.5)
    edge.ask(2)
    edge.belief.take(1.0, AT_S + 1)
    (pool,) = edge.belief.fleet(ME, 1.0).pools
    assert pool.requests_1m == 2
    assert array("I", edge.belief.history.view("15m")["replicas"]["r0"]["started"])[-1] == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("mode", "draining", "first"),
    [
        (Mode.NORMAL, False, ""),
        (Mode.HOLD, False, "silent for 4 s: this edge holds what it was given"),
        (Mode.AUTONOMOUS, False, "silent for 4 s: this edge goes on alone"),
        (Mode.NORMAL, True, "this edge drains"),
    ],
)
def test_what_it_says_of_itself(mode: Mode, draining: bool, first: str) -> None:
    edge = Edge().told(Serving.OPEN)
    edge.dispatch.enter(mode)
    me = Self("e1", "0.1.0", "", 4.0, draining)
    found = edge.belief.judge(edge.belief.fleet(me, 0.0), me, 0.0)
    assert found.level is (Level.DEGRADED if first else Level.OK)
    assert first in "".join(found.problems[:1])


def test_who_was_told_nothing_serves_nobody() -> None:
    edge = Edge()
    found = edge.belief.judge(edge.belief.fleet(ME, 0.0), ME, 0.0)
    assert (found.level, "serves nobody" in found.sentence) == (Level.DOWN, True)


def test_tenants_wait_and_run() -> None:
    edge = Edge().told()
    running = [(p.pool, p.ticket.tenant) for number in range(6) for p in edge.ask(number)]
    (found,) = edge.belief.tenants(running, 2.5)
    assert (found.tenant, found.inflight, found.queued, found.oldest_wait_s) == ("lab", 4, 2, 2.5)


def test_why_it_sends_what_it_sends() -> None:
    edge = Edge().told()
    closed = edge.belief.explain("r1", 0.0)
    assert closed.headline == "this edge sends it no new requests: closed: cordoned by anna"
    assert "ctl explain replica r1" in closed.effect
    for number in range(5):
        edge.ask(number)
    full = edge.belief.explain("r0", 0.0)
    assert full.headline == "this edge sends it requests: 4 of 4 slots in use; all edges have 9"
    edge.dispatch.replica("r0").suspicion.observe(Outcome.HARD, 0.0)
    assert "its requests failed there; 1.5 s more" in edge.belief.explain("r0", 0.5).headline
    with pytest.raises(KeyError):
        edge.belief.explain("r9", 0.0)

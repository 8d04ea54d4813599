"""edge/core/dispatch: a second attempt beside one under way."""

from __future__ import annotations

from msgspec.structs import replace

from tests.unit.edge.test_dispatch import POOL, Fleet, charged
from trimtab.model import Outcome, Serving
from trimtab.policy.queue import Ticket


def test_a_hedge_goes_to_an_idle_replica_that_was_not_tried() -> None:
    fleet = Fleet({"a": 4, "b": 4, "c": 4})
    (first,) = fleet.offer(1)
    free, used = sorted({"a", "b", "c"} - {first.route.replica})
    tried = replace(first, ticket=replace(first.ticket, tried=frozenset({used})))
    fleet.serving[free] = Serving.CLOSED
    fleet.push()
    assert fleet.dispatch.beside(tried, 0.0) is None
    fleet.serving[free] = Serving.OPEN
    fleet.push()
    hedge = fleet.dispatch.beside(tried, 0.0)
    assert hedge is not None
    assert hedge.route.replica == free
    assert fleet.dispatch.totals() == (2, 0)
    fleet.dispatch.finish(hedge, Outcome.CLIENT, 1.0)
    fleet.finish(first.route.replica, Outcome.OK, 1.0)
    assert fleet.dispatch.totals() == (0, 0)


def test_nothing_is_hedged_where_there_is_work_to_do() -> None:
    fleet = Fleet({"a": 2, "b": 2})
    placed = [placement for number in range(3) for placement in fleet.offer(number)]
    assert fleet.dispatch.beside(placed[0], 0.0) is None  # the other one is half busy
    fleet.offer(3)
    fleet.offer(4)
    fleet.slots = {"a": 2, "b": 20}
    fleet.push()
    assert fleet.dispatch.totals() == (4, 1)
    assert fleet.dispatch.beside(placed[0], 0.0) is None  # somebody waits


def test_what_a_hedge_is_charged_is_given_back() -> None:
    fleet = Fleet({"a": 4, "b": 4})
    ticket = Ticket(1, 0.0, work=100.0, prompt_tokens=1000, tenant="t")
    assert fleet.dispatch.offer(POOL, ticket, 0.0) is None
    (first,) = fleet.place(0.0)
    hedge = fleet.dispatch.beside(first, 0.0)
    assert hedge is not None
    assert charged(fleet) == {"t": 200.0}
    fleet.dispatch.finish(hedge, Outcome.CLIENT, 1.0)
    assert charged(fleet) == {"t": -100.0}

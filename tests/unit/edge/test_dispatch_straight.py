"""edge/core/dispatch: the straight way past a queue in which nobody waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.edge.test_dispatch import POOL, Fleet
from trimtab.model import Outcome
from trimtab.policy.queue import Ticket


@given(st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.booleans()), max_size=30))
def test_the_straight_way_leads_where_the_queue_would(asked: list[tuple[str, bool]]) -> None:
    straight, queued = Fleet({"x": 4, "y": 2}), Fleet({"x": 4, "y": 2})
    for number, (key, ends) in enumerate(asked):
        ticket = Ticket(number, float(number), tenant="t", affinity=key.encode() * 8)
        admitted = straight.dispatch.admit(POOL, ticket, float(number))
        if admitted is None:  # full: only then a request may wait
            assert straight.dispatch.totals()[0] == 6
            return
        straight.placed.append(admitted)
        assert queued.dispatch.offer(POOL, ticket, float(number)) is None
        assert queued.place(float(number)) == [admitted]
        for fleet in (straight, queued):
            if ends:
                fleet.finish(admitted.route.replica, Outcome.OK, float(number), number=number)
    reports = [
        (f.dispatch.report_replicas(99.0), f.dispatch.report_pools(99.0))
        for f in (straight, queued)
    ]
    assert reports[0] == reports[1]
    one, other = straight.dispatch.pool(POOL), queued.dispatch.pool(POOL)
    assert (one.budget, one.queue.charges) == (other.budget, other.queue.charges)


def test_nobody_goes_past_those_who_wait() -> None:
    fleet = Fleet({"a": 1})
    assert fleet.dispatch.admit(POOL, Ticket(1, 0.0), 0.0) is not None
    assert fleet.dispatch.admit(POOL, Ticket(2, 0.0), 0.0) is None
    fleet.offer(2)
    fleet.slots["a"] = 3
    fleet.push()
    assert fleet.dispatch.admit(POOL, Ticket(3, 0.0), 0.0) is None
    assert [placement.ticket.number for placement in fleet.place(0.0)] == [2]

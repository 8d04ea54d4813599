"""What tenants have at which edge: sums that survive reconnects, told in a bounded way."""

from __future__ import annotations

from controlplane.core.charges import ENTRIES_LIMIT, TENANTS_LIMIT, Charges
from controlplane.core.edges import Edge, Who
from trimtab.model import EdgeHello, TenantUse, Urgency

T: Who = (Urgency.DEFAULT, "t")


def edge(charged: dict[Who, float] | None = None) -> Edge:
    known = Edge(EdgeHello("e"), stream=1, connected_at_s=0.0, heard_at_s=0.0)
    known.charged = {"m": charged or {}}
    return known


def test_an_edge_alone_is_told_nothing() -> None:
    charges = Charges()
    charges.take("m", {"e1": edge({T: 5.0})}, {"e1": (TenantUse("t", queued=1, queued_work=9.0),)})
    assert charges.elsewhere("e1") == ()


def test_others_are_all_but_oneself_also_after_a_reconnect() -> None:
    charges = Charges()
    charges.take("m", {"e1": edge({T: 5.0}), "e2": edge({T: 7.0})}, {})
    assert [e.charged_work for e in charges.elsewhere("e1")] == [7.0]
    charges.take("m", {"e2": edge()}, {})
    charges.take("m", {"e1": edge({T: 1.0}), "e2": edge()}, {})
    assert [e.charged_work for e in charges.elsewhere("e1")] == [7.0]
    assert [e.charged_work for e in charges.elsewhere("e2")] == [6.0]


def test_what_waits_is_of_now() -> None:
    charges = Charges()
    fleet = {"e1": edge(), "e2": edge()}
    charges.take("m", fleet, {"e1": (TenantUse("t", queued=2, queued_work=30.0),), "e2": ()})
    assert [e.queued_work for e in charges.elsewhere("e2")] == [30.0]
    assert [e.queued_work for e in charges.elsewhere("e1")] == [0.0]
    charges.take("m", fleet, {"e1": (), "e2": ()})
    assert charges.elsewhere("e2") == ()


def test_who_begins_to_wait_is_lifted_to_those_that_wait() -> None:
    charges = Charges()
    old, new = TenantUse("old", queued=1), TenantUse("new", queued=1)
    fleet = {"e1": edge({(Urgency.DEFAULT, "old"): 500.0})}
    charges.take("m", fleet, {"e1": (old,)})
    charges.take("m", fleet, {"e1": (old, new)})
    assert charges.shares.counters["new"] == 500.0


def test_tenants_and_what_is_told_are_bounded() -> None:
    charges = Charges()
    many = {(Urgency.DEFAULT, f"t{number}"): 1.0 for number in range(2 * TENANTS_LIMIT)}
    waiting = tuple(TenantUse(f"t{n}", queued=1, queued_work=float(n)) for n in range(200))
    charges.take("m", {"e1": edge(many), "e2": edge()}, {"e1": waiting, "e2": ()})
    told = charges.elsewhere("e2")
    assert len(told) == ENTRIES_LIMIT
    assert told[0].queued_work == 199.0
    assert sum(e.charged_work for e in told) == ENTRIES_LIMIT

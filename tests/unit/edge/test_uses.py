"""edge/core/uses: who waits is told in a bounded way, and nothing is told twice."""

from __future__ import annotations

import random

from edge.core.uses import AGES_LIMIT, USES_LIMIT, folded, tenants
from trimtab.model import EdgeReport, PoolUse, ReplicaUse, SteadyUse, TenantUse, Urgency
from trimtab.policy.queue import Queue, Ticket


def filled(*tickets: Ticket) -> Queue:
    queue = Queue(100_000)
    for ticket in tickets:
        assert queue.offer(ticket, ticket.since_s, random.Random(0), lambda: False) is None
    return queue


def test_ages_are_told_oldest_first_with_the_work() -> None:
    queue = filled(*(Ticket(n, float(n), work=10.0, tenant="t") for n in range(3)))
    assert tenants(queue, 5.0) == (
        TenantUse("t", Urgency.DEFAULT, 3, 30.0, (5_000, 4_000, 3_000), 0.0),
    )


def test_charges_are_told_once_also_of_those_that_wait_no_more() -> None:
    queue = filled(Ticket(1, 0.0, work=10.0, tenant="t"))
    (ticket,) = queue.head(1, 0.0)
    queue.depart(ticket)
    queue.settle(ticket, 7.0)
    assert tenants(queue, 1.0) == (TenantUse("t", Urgency.DEFAULT, 0, 0.0, (), 7.0),)
    assert tenants(queue, 2.0) == ()


def test_a_flood_is_told_in_few_words() -> None:
    flood = (Ticket(n, n / 1000, work=1.0, tenant="flood") for n in range(1_000))
    light = Ticket(5_000, 1.0, work=1.0, tenant="light")
    told = tenants(filled(*flood, light), 2.0)
    assert [(use.tenant, use.queued) for use in told] == [("flood", 1_000), ("light", 1)]
    assert sum(len(use.ages_ms) for use in told) <= AGES_LIMIT
    assert told[1].ages_ms == (1_000,)


def test_many_tenants_are_told_over_several_reports() -> None:
    queue = filled(*(Ticket(n, 0.0, work=1.0 + n, tenant=f"t{n}") for n in range(100)))
    for ticket in queue.head(100, 0.0):
        queue.depart(ticket)
    first, second = tenants(queue, 1.0), tenants(queue, 2.0)
    assert len(first) == USES_LIMIT
    assert {use.tenant for use in first} | {use.tenant for use in second} == {
        f"t{n}" for n in range(100)
    }
    assert sum(use.charged_work for use in (*first, *second)) == sum(range(1, 101))
    assert tenants(queue, 3.0) == ()


def test_only_replicas_on_which_nothing_happened_become_columns() -> None:
    news = (ReplicaUse("b", 2, dispatched=1), ReplicaUse("d", suspect=True))
    steady = (ReplicaUse("a", 3, tokens=45), ReplicaUse("c", tokens=1))
    pools = (PoolUse("m"),)
    report = EdgeReport(7, (steady[0], *news, steady[1]), pools)
    columns = SteadyUse(("a", "c"), (3, 0), (45, 1))
    assert folded(report) == EdgeReport(7, news, pools, columns)

"""Pages of metrics as large as those that must be scraped in 50 ms."""

from __future__ import annotations

from controlplane.core.events import AgentSaid, EdgeSaid
from controlplane.core.placement import Placement
from controlplane.core.registry import Registry
from controlplane.core.view import Leader, fleet
from controlplane.metrics import Numbers, of_fleet
from edge.core.decisions import Attempt, Ending, Notes, Record
from edge.core.dispatch import Dispatch
from edge.core.table import RoutingTable
from edge.metrics import EdgeMetrics
from tests.fakes.dice import Loaded
from tests.fakes.peers import facts, sample
from trimtab.model import (
    EdgeHello,
    EdgeReport,
    NodeHello,
    Outcome,
    PoolUse,
    ReplicaUse,
    Report,
    TenantUse,
    Urgency,
)

REPLICAS, TENANTS, MODELS = 100, 20, 4


def busy_edge() -> EdgeMetrics:
    """Each tenant has used each model, in three ways; each replica was tried."""
    table = RoutingTable()
    dispatch = Dispatch(table, Loaded())
    metrics = EdgeMetrics(dispatch)
    endings = (Ending("ok", 200), Ending("shed", 503, "", 1.0, "wait"), Ending("client_disconnect"))
    for number in range(TENANTS * MODELS):
        pool, tenant = f"m{number % MODELS}", f"t{number // MODELS}"
        dispatch.pool(pool)
        for ending in endings:
            one = Attempt("r", 1.0, 2.0, Outcome.OK, "", 200, (), tokens=9, prompt_tokens=40)
            record = Record(
                *("q", pool, tenant, Urgency.BATCH, 1, 1.0, Notes(None, [one]), 1.5, 2.0, ending),
                retries=1,
            )
            metrics.ended(record)
    for number in range(REPLICAS):
        metrics.attempted(f"r{number}", None, Outcome.OK)
    metrics.refresh()
    return metrics


def led() -> Registry:
    """As many replicas, and an edge."""
    registry = Registry(Placement(), Loaded(), 100.0)
    for number in range(REPLICAS):
        node, name, model = f"n{number}", f"r{number}", f"m{number % MODELS}"
        one = sample(name, running=1, metrics_age_ms=100)
        registry.handle(AgentSaid(number, NodeHello(node)), 100.0)
        registry.handle(AgentSaid(number, facts(name, served_models=(model,))), 100.0)
        registry.handle(AgentSaid(number, Report(1, (one,))), 100.0)
    registry.handle(EdgeSaid(900, EdgeHello("e1")), 100.0)
    waits = TenantUse("t0", queued=2, queued_work=40.0)
    report = EdgeReport(1, (ReplicaUse("r0", 3, 7),), (PoolUse("m0", 2, 500, 9, tenants=(waits,)),))
    registry.handle(EdgeSaid(900, report), 100.0)
    return registry


def told(registry: Registry) -> Numbers:
    """What their leader tells."""
    return of_fleet(fleet(Leader("f", "cp", "1", 1, 1), registry, {}, 101.0), registry, 101.0)

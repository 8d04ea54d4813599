"""What the registry leaves behind for the timeline and the table of tenants."""

from __future__ import annotations

import random
from array import array

from controlplane.core.events import AgentSaid, EdgeSaid
from controlplane.core.past import Past, tenants
from controlplane.core.placement import Placement
from controlplane.core.registry import Registry
from tests.fakes.peers import facts, sample
from trimtab.history import ENGINES, USES
from trimtab.model import (
    EdgeHello,
    EdgeReport,
    EngineState,
    NodeHello,
    Pool,
    PoolUse,
    ReplicaUse,
    Report,
    TenantUse,
)

AT_S = 1_800_000_000.0


def registry() -> Registry:
    """One replica that serves m, and an edge."""
    found = Registry(Placement([Pool("m")]), random.Random(1), 0.0)
    for message in (NodeHello("n"), facts(), Report(1, (sample(waiting=2),))):
        found.handle(AgentSaid(1, message), 0.0)
    found.handle(EdgeSaid(2, EdgeHello("e")), 0.0)
    return found


def report(seq: int, **pool: object) -> EdgeSaid:
    """The edge began three attempts, and says this of its pool."""
    uses = (ReplicaUse("r1", inflight=5, dispatched=3),)
    return EdgeSaid(2, EdgeReport(seq, uses, (PoolUse("m", **pool),)))  # type: ignore[arg-type]


def test_a_moment_has_what_happened_since_the_one_before() -> None:
    known, past = registry(), Past(AT_S)
    known.handle(report(1, requests=9, shed=2), 0.5)
    past.take(known, 0.6, AT_S)  # the first one has nothing to compare with
    known.handle(report(2, requests=4, shed=1, queued=7), 1.0)
    past.take(known, 1.6, AT_S + 1)
    (finished,) = past.take(known, 2.6, AT_S + 2)
    cell = past.history.cell(*finished)
    limit = cell.replicas["r1"][2]
    assert limit >= 16
    codes = [USES.index("healthy"), ENGINES.index("READY")]
    assert cell.replicas == {"r1": [3, 5, limit, 2, *codes]}
    assert cell.pools == {"m": [4, 1, 7]}


def test_what_is_lost_shows_its_state_and_no_room() -> None:
    known, past = registry(), Past(AT_S)
    dead = Report(2, (sample(state=EngineState.DEAD),))
    known.handle(AgentSaid(1, dead), 1.0)
    past.take(known, 1.0, AT_S)
    columns = past.history.view("15m")["replicas"]["r1"]  # type: ignore[index]
    assert array("H", columns["limit"])[-1] == 0
    assert USES[columns["use"][-1]] == "ejected"
    assert ENGINES[columns["engine"][-1]] == "DEAD"


def test_tenants_are_summed_over_edges_and_compared_within_their_pool() -> None:
    known = registry()
    known.handle(EdgeSaid(3, EdgeHello("f")), 0.0)
    waits = TenantUse("a", queued=2, ages_ms=(1500, 10), charged_work=300.0)
    pool = PoolUse("m", tenants=(waits, TenantUse("b", charged_work=100.0), TenantUse("c")))
    for stream in (2, 3):
        known.handle(EdgeSaid(stream, EdgeReport(1, (), (pool,))), 1.0)
    found = {t.tenant: t for t in tenants(known.edges.by_name.values(), 1.0)}
    assert found.keys() == {"a", "b"}
    assert (found["a"].queued, found["a"].oldest_wait_s, found["a"].work_ratio) == (4, 1.5, 0.75)
    assert found["b"].work_ratio == 0.25

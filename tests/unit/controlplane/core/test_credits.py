"""Room is shared out, never twice, and flows to where requests wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.credits import Ledger, full_slots, open_slots, slots, weights
from controlplane.core.edges import Edge
from controlplane.core.replica import Replica
from tests.fakes.peers import facts, sample
from trimtab.model import (
    BreakerState,
    Credits,
    EdgeHello,
    EngineSample,
    PoolUse,
    Route,
    Serving,
    TenantUse,
    Urgency,
)
from trimtab.policy.breaker import Breaker
from trimtab.policy.limits import QUEUE_TARGET_MAX

NOW_S = 10.0


def replica(
    name: str, max_num_seqs: int = 16, pool: str = "m", serving: Serving = Serving.OPEN
) -> Replica:
    known = Replica(name, "http://h:1", known_since_s=0.0)
    known.facts = facts(name, max_num_seqs=max_num_seqs)
    known.sample, known.sampled_at_s = sample(name, running=3, waiting=1), 9.5
    known.standing.breaker = Breaker(BreakerState.HEALTHY)
    known.route = Route(name, pool, "n", "http://h:1", "m", serving)
    return known


def weighed_now(replicas: list[Replica]) -> dict[str, float]:
    return weights(replicas, open_slots(replicas, NOW_S))


def edge(
    inflight: dict[str, int] | None = None,
    tenants: tuple[TenantUse, ...] = (),
    *,
    term: int = 0,
    reported: bool = True,
) -> Edge:
    known = Edge(EdgeHello("e", term=term), stream=1, connected_at_s=9.9, heard_at_s=9.9)
    if reported:
        known.reported_at_s = NOW_S
        known.inflight = inflight or {}
        known.pools = {"m": PoolUse("m", sum(use.queued for use in tenants), tenants=tenants)}
    return known


def edges(count: int) -> dict[str, Edge]:
    return {f"e{index}": edge() for index in range(count)}


def given_slots(shares: dict[str, Credits], name: str) -> dict[str, int]:
    return {
        one: next(credit.slots for credit in each.credits if credit.replica == name)
        for one, each in shares.items()
    }


def test_a_lone_edge_gets_all() -> None:
    (credit,) = Ledger().split([replica("r1")], edges(1), NOW_S)["e0"].credits
    assert credit.slots == 16 + QUEUE_TARGET_MAX
    assert (credit.running, credit.waiting, credit.report_age_ms) == (3, 1, 500)


def test_one_that_ramps_gets_less() -> None:
    ramping = replica("r1")
    ramping.standing.breaker = Breaker(BreakerState.RAMPING, cap_slots=6.6)
    shares = Ledger().split([ramping], edges(4), NOW_S)
    assert sum(given_slots(shares, "r1").values()) == slots(ramping, NOW_S) == 6
    assert full_slots(ramping, NOW_S) == 16 + QUEUE_TARGET_MAX
    weighed = weighed_now([ramping, replica("r2", 50)])
    assert weighed == {"r1": 0.1, "r2": 0.9}


def test_without_edges_there_is_nothing_to_share() -> None:
    assert Ledger().split([replica("r1")], {}, NOW_S) == {}


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(1, 40))
def test_idle_room_is_spread_and_the_sum_is_the_limit(limits: list[int], count: int) -> None:
    replicas = [replica(f"r{index}", limit) for index, limit in enumerate(limits)]
    shares = Ledger().split(replicas, edges(count), NOW_S)
    for known in replicas:
        of = given_slots(shares, known.name).values()
        assert sum(of) == slots(known, NOW_S)
        assert max(of) - min(of) <= 1


def test_the_rest_does_not_always_go_to_the_same_edge() -> None:
    replicas = [replica(f"r{index}", 17) for index in range(60)]
    shares = Ledger().split(replicas, edges(2), NOW_S)
    totals = [sum(credit.slots for credit in each.credits) for each in shares.values()]
    assert sum(totals) == 60 * 21
    assert abs(totals[0] - totals[1]) < 30


def test_room_goes_to_where_requests_wait() -> None:
    waits = TenantUse("t", queued=50, queued_work=500.0, ages_ms=(900,) * 50)
    fleet = {"busy": edge({"r1": 10}, (waits,)), "quiet": edge({"r1": 2})}
    shares = Ledger().split([replica("r1")], fleet, NOW_S)
    assert given_slots(shares, "r1") == {"busy": 18, "quiet": 2}
    fleet["busy"].pools = {"m": PoolUse("m", queued=50, oldest_wait_ms=900)}  # an older edge
    assert given_slots(Ledger().split([replica("r1")], fleet, NOW_S), "r1")["busy"] == 18
    fleet["busy"].reported_at_s = NOW_S - 9.0
    assert given_slots(Ledger().split([replica("r1")], fleet, NOW_S), "r1")["busy"] == 14


@pytest.mark.parametrize(
    ("known", "age_s", "told"),
    [
        (edge(reported=False), 0.1, True),
        (edge(reported=False, term=3), 0.1, False),
        (edge(reported=False, term=3), 2.0, True),
        (edge(reported=True, term=3), 0.1, True),
    ],
    ids=["new", "serves already", "never tells", "has told"],
)
def test_an_edge_that_serves_already_is_asked_first(known: Edge, age_s: float, told: bool) -> None:
    known.connected_at_s = NOW_S - age_s
    assert ("e" in Ledger().split([replica("r1")], {"e": known}, NOW_S)) == told


def test_edges_are_told_what_waits_and_was_served_at_the_others() -> None:
    waits = TenantUse("t", Urgency.BATCH, 2, 20.0, (900, 800))
    fleet = {"e1": edge(tenants=(waits,)), "e2": edge()}
    fleet["e1"].charged = {"m": {(Urgency.BATCH, "t"): 70.0}}
    shares = Ledger().split([replica("r1")], fleet, NOW_S)
    (there,), (here,) = ([pace.elsewhere for pace in shares[e].paces] for e in ("e2", "e1"))
    assert [(e.tenant, e.queued_work, e.charged_work) for e in there] == [("t", 20.0, 70.0)]
    assert [(e.queued_work, e.charged_work) for e in here] == [(0.0, 0.0)]
    assert fleet["e1"].charged == {}


def fed(known: Replica, tokens_per_s: int, finished_per_s: int) -> Replica:
    """Its agent has reported for 10 s, full all the time."""
    before: EngineSample | None = None
    for tick in range(21):
        now = sample(
            known.name,
            running=99,
            waiting=4,
            generation_tokens_total=tick * tokens_per_s // 2,
            finished_total=tick * finished_per_s // 2,
        )
        known.load.take_sample(before, now, 16, 20, tick / 2)
        before = now
    return known


def test_the_pace_of_a_pool_is_what_its_open_replicas_do_when_full() -> None:
    members = [fed(replica("r1"), 1000, 10), fed(replica("r2"), 500, 5)]
    (pace,) = Ledger().split(members, edges(1), NOW_S)["e0"].paces
    assert pace.work_per_s == pytest.approx(1500.0)
    assert pace.answer_tokens == pytest.approx(100.0, rel=0.1)
    unseen = replica("r3")
    (pace,) = Ledger().split([*members, unseen], edges(1), NOW_S)["e0"].paces
    assert pace.work_per_s == pytest.approx(2250.0, rel=0.03), "taken for one like the others"
    members[0].route = replica("r1", serving=Serving.LOST).route
    (pace,) = Ledger().split(members, edges(1), NOW_S)["e0"].paces
    assert pace.work_per_s == pytest.approx(500.0), "what is admitted falls in the same push"


def test_an_unknown_pace_is_not_told() -> None:
    (pace,) = Ledger().split([replica("r1")], edges(1), NOW_S)["e0"].paces
    assert (pace.work_per_s, pace.answer_tokens) == (None, None)


def test_weights_are_shares_of_the_open_slots_of_a_pool() -> None:
    members = [
        replica("r1", 16),
        replica("r2", 56),
        replica("r3", 999, serving=Serving.CLOSED),
        replica("r4", 8, pool="other"),
        replica("r5", serving=Serving.LOST),
    ]
    assert weighed_now(members) == {"r1": 0.25, "r2": 0.75, "r4": 1.0}


def test_what_is_not_open_gets_nothing() -> None:
    unheard = Replica("r3", "http://h:1", known_since_s=0.0)
    closed = [replica("r1", serving=Serving.CLOSED), replica("r2", serving=Serving.LOST), unheard]
    shares = {c.replica: c for c in Ledger().split(closed, edges(1), NOW_S)["e0"].credits}
    assert [(c.slots, c.weight) for c in shares.values()] == [(0, 0.0)] * 3
    assert shares["r3"].report_age_ms is None

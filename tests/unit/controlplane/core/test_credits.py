"""Room is shared out, never twice, and no edge is left without any."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.credits import QUEUE_TARGET, full_slots, slots, split, weights
from controlplane.core.replica import Replica
from tests.fakes.peers import facts, sample
from trimtab.model import BreakerState, Route, Serving
from trimtab.policy.breaker import Breaker


def replica(
    name: str, max_num_seqs: int = 16, pool: str = "m", serving: Serving = Serving.OPEN
) -> Replica:
    known = Replica(name, "http://h:1", known_since_s=0.0)
    known.facts = facts(name, max_num_seqs=max_num_seqs)
    known.sample, known.sampled_at_s = sample(name, running=3, waiting=1), 9.5
    known.standing.breaker = Breaker(BreakerState.HEALTHY)
    known.route = Route(name, pool, "n", "http://h:1", "m", serving)
    return known


def test_a_lone_edge_gets_all() -> None:
    (credit,) = split([replica("r1")], ["e1"], now_s=10.0)["e1"].credits
    assert credit.slots == 16 + QUEUE_TARGET
    assert (credit.running, credit.waiting, credit.report_age_ms) == (3, 1, 500)


def test_one_that_ramps_gets_less() -> None:
    ramping = replica("r1")
    ramping.standing.breaker = Breaker(BreakerState.RAMPING, cap_slots=6.6)
    (credit,) = split([ramping], ["e1"], now_s=10.0)["e1"].credits
    assert credit.slots == slots(ramping) == 6
    assert full_slots(ramping) == 16 + QUEUE_TARGET
    weighed = weights([ramping, replica("r2", 50)])
    assert weighed == {"r1": 0.1, "r2": 0.9}


def test_without_edges_there_is_nothing_to_share() -> None:
    assert split([replica("r1")], [], now_s=10.0) == {}


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=8),
    st.integers(1, 40),
)
def test_the_sum_is_bounded_and_fair(limits: list[int], edges: int) -> None:
    replicas = [replica(f"r{index}", limit) for index, limit in enumerate(limits)]
    shares = split(replicas, [f"e{index}" for index in range(edges)], now_s=10.0)
    for index, known in enumerate(replicas):
        given_slots = [credits_.credits[index].slots for credits_ in shares.values()]
        limit = slots(known)
        assert limit <= sum(given_slots) <= limit + edges
        assert min(given_slots) >= 1
        assert max(given_slots) - min(given_slots) <= 1
        if limit >= edges:
            assert sum(given_slots) == limit


def test_the_rest_does_not_always_go_to_the_same_edge() -> None:
    replicas = [replica(f"r{index}", 17) for index in range(60)]
    shares = split(replicas, ["e1", "e2"], now_s=10.0)
    totals = [sum(credit.slots for credit in each.credits) for each in shares.values()]
    assert sum(totals) == 60 * 21
    assert abs(totals[0] - totals[1]) < 30


def test_weights_are_shares_of_the_open_slots_of_a_pool() -> None:
    found = weights(
        [
            replica("r1", 16),
            replica("r2", 56),
            replica("r3", 999, serving=Serving.CLOSED),
            replica("r4", 8, pool="other"),
            replica("r5", serving=Serving.LOST),
        ]
    )
    assert found == {"r1": 0.25, "r2": 0.75, "r4": 1.0}


def test_what_is_not_open_gets_nothing() -> None:
    unheard = Replica("r3", "http://h:1", known_since_s=0.0)
    closed = [replica("r1", serving=Serving.CLOSED), replica("r2", serving=Serving.LOST), unheard]
    shares = split(closed, ["e1"], now_s=10.0)["e1"].credits
    assert [(credit.slots, credit.weight) for credit in shares] == [(0, 0.0)] * 3
    assert shares[2].report_age_ms is None

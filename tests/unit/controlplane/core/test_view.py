"""The fleet for people."""

from __future__ import annotations

import pytest

from controlplane.core.events import AgentSaid, EdgeSaid
from controlplane.core.placement import EngineSpec, Placement
from controlplane.core.registry import Registry
from controlplane.core.replica import Replica
from controlplane.core.subscription import Subscription
from controlplane.core.view import Leader, fleet
from tests.fakes.dice import Loaded
from tests.fakes.peers import facts, sample
from trimtab.model import (
    Ack,
    AgentMessage,
    EdgeHello,
    EdgeReport,
    EngineState,
    GpuSample,
    HistogramDelta,
    NodeHello,
    Outcome,
    OutcomeCount,
    PoolUse,
    ReplicaUse,
    Report,
    Serving,
    Snapshot,
)
from trimtab.views import Fleet

LEADER = Leader("lab", "cp1", "0.1.0", term=4, version=17)


def make() -> Registry:
    placement = Placement([], [EngineSpec("planned", "http://h:9", "m")])
    registry = Registry(placement, Loaded(), 100.0)

    def say(message: AgentMessage, now_s: float) -> None:
        registry.handle(AgentSaid(1, message), now_s)

    gpus = (GpuSample(0, name="zero"), GpuSample(1, name="one"))
    say(NodeHello("n1", "1.2"), 100.0)
    say(facts("r1", uptime_ms=1_000), 100.0)
    say(facts("r2", max_num_seqs=36), 100.0)
    for step in range(21):
        one = sample(
            "r1",
            running=2,
            generation_tokens_total=100 * step,
            gpus=(1,),
            state_age_ms=50,
            ttft=HistogramDelta((0.25,), (1,), 0.2),
        )
        two = sample("r2", EngineState.STALLED, no_progress_ms=4_000)
        say(Report(step, (one, two), gpus, "detail"), 100.0 + step)
    return registry


def edge(registry: Registry, stream: int, name: str, dispatched: int) -> None:
    registry.handle(EdgeSaid(stream, EdgeHello(name, "1.0", "i", "http://e")), 110.0)
    uses = (
        ReplicaUse(
            "r1",
            inflight=2,
            dispatched=dispatched,
            outcomes=(
                OutcomeCount(Outcome.SOFT, 1),
                OutcomeCount(Outcome.PATH, 1),
                OutcomeCount(Outcome.OVERLOAD, 3),
                OutcomeCount(Outcome.CLIENT, 9),
            ),
        ),
        ReplicaUse("r2", dispatched=10),
        ReplicaUse("who?", dispatched=1_000),
    )
    pools = (PoolUse("m", queued=3, requests=20, shed=2), PoolUse("who?", requests=1_000))
    registry.handle(EdgeSaid(stream, EdgeReport(1, uses, pools)), 118.0)


def test_nothing_is_a_fleet_too() -> None:
    registry = Registry(Placement(), Loaded(), 0.0)
    assert fleet(LEADER, registry, {}, 1.0) == Fleet("lab", "cp1", 4, 17, "0.1.0")


def test_replicas() -> None:
    registry = make()
    edge(registry, 11, "e1", dispatched=20)
    edge(registry, 12, "e2", dispatched=40)
    planned, one, two = fleet(LEADER, registry, {}, 120.4).replicas

    assert (planned.route.replica, planned.state) == ("planned", EngineState.UNKNOWN)
    assert (planned.report_age_ms, planned.generation_tokens_per_s, planned.gpus) == (
        None,
        None,
        (),
    )
    # 16 and 4 to keep it busy, less a twentieth because it refused
    assert (one.limit_slots, one.weight, one.inflight, one.running) == (19, 1.0, 4, 2)
    assert (one.failures_1m, one.overloads_1m) == (4, 6)
    assert one.share_ratio == pytest.approx(60 / 80)
    assert one.generation_tokens_per_s == pytest.approx(2000 / 20.4)
    assert one.ttft_p50_s == pytest.approx(0.175)
    assert one.ttft_p99_s == pytest.approx(0.2485)
    assert (one.report_age_ms, one.state_age_ms, one.uptime_ms) == (400, 450, 21_400)
    assert [gpu.name for gpu in one.gpus] == ["one"]
    assert (two.route.serving, two.limit_slots, two.weight) == (Serving.CLOSED, 0, 0.0)
    assert (two.max_num_seqs, two.uptime_ms, two.ttft_p50_s) == (36, None, None)


def test_pools_edges_and_agents() -> None:
    registry = make()
    edge(registry, 11, "e1", dispatched=20)
    subscription = Subscription()
    (update,) = subscription.next(4, lambda: 16, Snapshot(), None, 118.0)
    subscription.ack(Ack(update.nonce), 118.0)
    shown = fleet(LEADER, registry, {11: subscription}, 120.0)

    (pool,) = shown.pools
    assert (pool.pool, pool.replicas, pool.open) == ("m", 3, 1)
    assert (pool.open_slots, pool.healthy_slots) == (19, 19)
    assert (pool.requests_1m, pool.shed_1m, pool.queued, pool.inflight) == (20, 2, 3, 2)
    (view,) = shown.edges
    assert (view.acked_version, view.sent_version, view.last_error) == (16, 16, "")
    assert (view.requests_1m, view.shed_1m, view.queued, view.inflight) == (20, 2, 3, 2)
    assert (view.connected_ms, view.report_age_ms) == (10_000, 2_000)
    (agent,) = shown.agents
    assert (agent.node, agent.agent_version, agent.connected) == ("n1", "1.2", True)
    assert (agent.report_age_ms, agent.gpu_detail) == (0, "detail")


def test_a_minute_later_the_counters_are_empty() -> None:
    registry = make()
    edge(registry, 11, "e1", dispatched=20)
    one = fleet(LEADER, registry, {}, 300.0).replicas[1]
    assert (one.share_ratio, one.failures_1m, one.ttft_p99_s) == (None, 0, None)
    assert one.generation_tokens_per_s is None


def test_a_replica_that_was_never_reviewed_is_a_bug() -> None:
    registry = Registry(Placement(), Loaded(), 0.0)
    registry.replicas["r"] = Replica("r", "http://h:1", known_since_s=0.0)
    with pytest.raises(ValueError, match="never reviewed"):
        fleet(LEADER, registry, {}, 0.0)

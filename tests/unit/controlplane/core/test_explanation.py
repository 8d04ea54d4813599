"""Each cause that keeps traffic from a replica, made to happen, is named in the first line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controlplane.core import explanation, view
from controlplane.core.events import AgentGone, AgentSaid, EdgeSaid, IntentSet, Tick
from controlplane.core.placement import EngineSpec, Placement
from controlplane.core.records import Wish
from controlplane.core.registry import STALE_S, Registry
from controlplane.core.subscription import Subscription
from tests.fakes.dice import Loaded
from tests.fakes.peers import facts, sample
from trimtab.model import (
    AgentMessage,
    EdgeHello,
    EdgeReport,
    EngineState,
    GpuSample,
    GpuState,
    Intent,
    NodeHello,
    PoolUse,
    ReplicaUse,
    Report,
    Serving,
)
from trimtab.views import Concern, Explanation

WALL_OFFSET_S = 1_700_000_000.0
LEADER = view.Leader("lab", "cp1", "0.1.0", term=4, version=17)


class Story:
    """A fleet of two replicas, r1 and r2, of one pool; r1 is asked about."""

    def __init__(self, *engines: EngineSpec) -> None:
        self.now_s = 100.0
        self.registry = Registry(Placement([], engines), Loaded(), self.now_s)
        self.say(NodeHello("n1", "1.0"))
        self.seq = self.edge_seq = 0

    def say(self, message: AgentMessage) -> None:
        """The agent speaks."""
        self.registry.handle(AgentSaid(1, message), self.now_s)

    def serve(self, gpus: tuple[GpuSample, ...] = (), **r1: Any) -> None:
        """Half a second with both as told; r2 is always well."""
        self.now_s, self.seq = self.now_s + 0.5, self.seq + 1
        one = sample("r1", **({"running": 1, "generation_tokens_total": 10 * self.seq} | r1))
        two = sample("r2", running=1, generation_tokens_total=10 * self.seq)
        self.say(Report(self.seq, (one, two), gpus))
        self.registry.handle(Tick(), self.now_s)

    def well(self) -> None:
        """Both serve, and an edge asks."""
        for name in ("r1", "r2"):
            self.say(facts(name))
        for _ in range(4):
            self.serve()
        self.edge(inflight=1)

    def edge(self, inflight: int, requests: int = 5) -> None:
        """An edge that uses r1."""
        if not self.edge_seq:
            self.registry.handle(EdgeSaid(9, EdgeHello("e1", "1.0", "i")), self.now_s)
        self.edge_seq += 1
        use = ReplicaUse("r1", inflight=inflight, dispatched=inflight)
        report = EdgeReport(self.edge_seq, (use,), (PoolUse("m", queued=3, requests=requests),))
        self.registry.handle(EdgeSaid(9, report), self.now_s)

    def why(self, subscription: Subscription | None = None) -> Explanation:
        """What is said of r1."""
        registry, now_s = self.registry, self.now_s
        fleet = view.fleet(LEADER, registry, {9: subscription or Subscription()}, now_s)
        replica = registry.replicas["r1"]
        node = registry.agents.by_node.get(replica.node)
        wall_s = now_s + WALL_OFFSET_S
        return explanation.explain(explanation.case(fleet, replica, node, now_s, wall_s, STALE_S))


def cordoned(story: Story) -> None:
    wish = Wish(Intent.CORDONED, "new fan", "ada", story.now_s + WALL_OFFSET_S - 90.0)
    story.registry.handle(IntentSet("r1", wish), story.now_s)


def draining(story: Story) -> None:
    story.registry.handle(IntentSet("r1", Wish(Intent.DRAINING)), story.now_s)


def stalled(story: Story) -> None:
    story.serve(state=EngineState.STALLED, reason="no token", no_progress_ms=4_000)


def ejected(story: Story) -> None:
    for passed_ms in range(4_000, 12_000, 500):
        story.serve(state=EngineState.STALLED, reason="no token", no_progress_ms=passed_ms)


def loading(story: Story) -> None:
    story.serve(state=EngineState.STARTING, reason="loads its weights", epoch=2)


def warming(story: Story) -> None:
    story.serve(state=EngineState.WARMING, reason="first requests")


def asleep(story: Story) -> None:
    story.serve(state=EngineState.SLEEPING, reason="asleep")


def without_gpu(story: Story) -> None:
    gpus = (GpuSample(0, state=GpuState.LOST),)
    story.now_s, story.seq = story.now_s + 0.5, story.seq + 1
    story.say(Report(story.seq, (sample("r1", gpus=(0,)),), gpus))


def agent_gone(story: Story) -> None:
    story.registry.handle(AgentGone(1), story.now_s)
    story.now_s += 5.0


def full(story: Story) -> None:
    story.edge(inflight=40)


def crowded(story: Story) -> None:
    story.serve(kv_cache_usage_ratio=0.99, waiting=2)


def unasked(story: Story) -> None:
    story.now_s += 60.0
    story.serve(running=0)
    story.edge(inflight=0, requests=0)


CASES: dict[str, tuple[Callable[[Story], None], str, bool]] = {
    "cordoned": (cordoned, "no new requests: intent cordoned by ada 1.5 min ago: new fan", False),
    "draining": (draining, "no new requests: intent draining; 1 still run on it", False),
    "stalled": (stalled, "no new requests: engine STALLED", False),
    "ejected": (ejected, "no new requests: engine STALLED", False),
    "loading": (loading, "no new requests: engine STARTING for 0.0 s: loads its weights", False),
    "asleep": (asleep, "no new requests: engine SLEEPING", False),
    "gpu": (without_gpu, "no new requests: GPU GPU 0 is lost", False),
    "warming": (warming, "in rotation, but engine WARMING", True),
    "agent": (agent_gone, "in rotation, but agent its agent is disconnected", True),
    "full": (full, "in rotation, but room full: 40 of 20 slots in use, 3 wait", True),
    "memory": (crowded, "in rotation, but memory 99% of its KV cache is used, 2 wait", True),
    "demand": (unasked, "in rotation, but demand no requests for m in the last minute", True),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_line_names_the_cause(name: str) -> None:
    happen, words, in_rotation = CASES[name]
    story = Story()
    story.well()
    happen(story)
    found = story.why()
    assert words in found.headline
    assert found.in_rotation is in_rotation
    route = story.registry.replicas["r1"].route
    assert route is not None
    assert in_rotation is (route.serving is Serving.OPEN)  # what is said is what is done


def test_nothing_stands_in_the_way() -> None:
    story = Story()
    story.well()
    found = story.why()
    assert found.headline == "r1 is in rotation, and nothing holds it back"
    assert {finding.concern for finding in found.findings} == {Concern.FINE}
    assert found.advice == ()
    assert found.traffic.startswith("100% of the attempts of m")
    assert found.effect.startswith("m has 40 of 40 healthy slots open on 2 of 2 replicas; 3 ")


def test_all_looks_are_told_and_the_worst_first() -> None:
    story = Story()
    story.well()
    cordoned(story)
    stalled(story)
    found = story.why()
    assert [finding.what for finding in found.findings[:2]] == ["intent", "engine"]
    assert {finding.what for finding in found.findings} == set(explanation.LOOKS)
    assert [finding.concern for finding in found.findings] == sorted(
        finding.concern for finding in found.findings
    )
    assert found.advice[0] == "ctl uncordon r1"


def test_an_engine_that_nobody_has_reported() -> None:
    story = Story(EngineSpec("r1", "http://h:9", "m"))
    found = story.why()
    assert "no new requests: engine no report of it yet" in found.headline
    assert any("trimtab-agent" in hint for hint in found.advice)


def test_an_edge_that_refuses_its_routing_is_named() -> None:
    story = Story()
    story.well()
    subscription = Subscription()
    subscription.last_error = "routes: bad URL"
    assert "edges not all have the newest routing: e1 refused it: routes: bad URL" in (
        story.why(subscription).headline
    )

"""Each cause that keeps traffic from a replica, made to happen, is named in the first line."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controlplane.core import explanation, view
from controlplane.core.events import (
    AgentGone,
    AgentSaid,
    EdgeGone,
    EdgeSaid,
    IntentSet,
    Noted,
    OverrideSet,
    Tick,
)
from controlplane.core.journal import Journal
from controlplane.core.looks import LOOKS
from controlplane.core.overrides import key
from controlplane.core.placement import EngineSpec, Placement
from controlplane.core.records import Wish
from controlplane.core.registry import Registry
from controlplane.core.subscription import Subscription
from tests.fakes.dice import Loaded
from tests.fakes.peers import facts, sample
from trimtab.model import (
    AgentMessage,
    Bye,
    Cohort,
    EdgeHello,
    EdgeReport,
    EngineState,
    GpuSample,
    GpuState,
    Intent,
    NodeHello,
    Outcome,
    OutcomeCount,
    PoolUse,
    ProbeResult,
    ReplicaUse,
    Report,
    Serving,
    XidEvent,
)
from trimtab.steered import Override, OverrideKind, Share
from trimtab.views import Explanation, ReplicaAtEdge

WALL_OFFSET_S = 1_700_000_000.0
LEADER = view.Leader("lab", "cp1", "1.0.0", term=4, version=17)


class Story:
    """A fleet of two replicas, r1 and r2, of one pool; r1 is asked about."""

    def __init__(self, *engines: EngineSpec) -> None:
        self.now_s = 100.0
        self.registry = Registry(Placement([], engines), Loaded(), self.now_s)
        self.say(NodeHello("n1", "1.0"))
        self.seq, self.epoch = 0, 1
        self.edges: dict[str, int] = {}
        self.told: tuple[ReplicaAtEdge, ...] = ()
        self.journal = Journal()

    def say(self, message: AgentMessage) -> None:
        """The agent speaks."""
        self.registry.handle(AgentSaid(1, message), self.now_s)

    def serve(self, readings: tuple[GpuSample, ...] = (), **r1: Any) -> None:
        """Half a second with both as told; r2 is always well."""
        self.now_s, self.seq = self.now_s + 0.5, self.seq + 1
        one = sample(
            "r1",
            **({"running": 1, "generation_tokens_total": 10 * self.seq, "epoch": self.epoch} | r1),
        )
        two = sample("r2", running=1, generation_tokens_total=10 * self.seq)
        self.say(Report(self.seq, (one, two), readings))
        self.registry.handle(Tick(), self.now_s)

    def well(self) -> None:
        """Both serve, and an edge asks."""
        for name in ("r1", "r2"):
            self.say(facts(name))
        for _ in range(4):
            self.serve()
        self.edge(inflight=1)

    def edge(
        self, inflight: int, requests: int = 5, name: str = "e1", version: str = "1.0", **use: Any
    ) -> None:
        """An edge that uses r1."""
        number = 9 + int(name[1:])
        if name not in self.edges:
            self.registry.handle(EdgeSaid(number, EdgeHello(name, version, "i")), self.now_s)
        seq = self.edges[name] = self.edges.get(name, 0) + 1
        used = ReplicaUse("r1", inflight=inflight, **({"dispatched": inflight} | use))
        report = EdgeReport(seq, (used,), (PoolUse("m", queued=3, requests=requests),))
        self.registry.handle(EdgeSaid(number, report), self.now_s)

    def fails(self, failed: int, of: int) -> None:
        """An edge's attempts of the last second ended so."""
        self.serve()
        ended = {Outcome.HARD: failed, Outcome.OK: of - failed}
        counts = tuple(OutcomeCount(outcome, n) for outcome, n in ended.items())
        self.edge(1, dispatched=of, outcomes=counts, cohorts=(Cohort(100, of, counts),))
        self.serve()

    def why(self, subscription: Subscription | None = None) -> Explanation:
        """What is said of r1."""
        registry, now_s = self.registry, self.now_s
        fleet = view.fleet(LEADER, registry, {10: subscription or Subscription()}, now_s)
        case = explanation.case(registry, fleet, "r1", now_s, now_s + WALL_OFFSET_S)
        case = replace(case, told=self.told, node_events=self.journal.latest("n1", 20))
        return explanation.explain(case)


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


def hung_when_idle(story: Story) -> None:
    for _ in range(12):
        story.serve(running=0, generation_tokens_total=80)


def loading(story: Story) -> None:
    story.epoch = 2
    story.serve(state=EngineState.STARTING, reason="loads its weights")


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


def spare(story: Story) -> None:
    story.registry.handle(IntentSet("r1", Wish(Intent.SPARE, "", "ada")), story.now_s)


def failing(story: Story) -> None:
    story.fails(10, of=10)


def impaired(story: Story) -> None:
    story.fails(5, of=40)


def refused(story: Story) -> None:
    for edge in ("e1", "e2"):
        story.edge(0, name=edge, refused=1)
    story.serve()


def stumbling(story: Story) -> None:
    ramping(story)
    story.fails(2, of=10)


def probing(story: Story) -> None:
    loading(story)
    story.serve()


def ramping(story: Story) -> None:
    probing(story)
    breaker = story.registry.replicas["r1"].standing
    for _ in range(4):
        if breaker.asked is not None:
            story.say(ProbeResult(breaker.asked.probe_id, "r1", ok=True))
            break
        story.serve()


def hot(story: Story) -> None:
    gpus = (GpuSample(0, throttle_reasons=0x40, temperature_celsius=92),)
    story.serve(gpus, gpus=(0,))


def with_xid(story: Story) -> None:
    story.say(facts("r1", uptime_ms=60_000))
    gpus = (GpuSample(0, xids=(XidEvent(79, 1_000),)),)
    story.serve(gpus, gpus=(0,))


def agent_silent(story: Story) -> None:
    story.now_s += 5.0
    story.registry.handle(Tick(), story.now_s)


def agent_left(story: Story) -> None:
    story.say(Bye("stopped by systemd"))
    agent_gone(story)


def turned_away(story: Story) -> None:
    agent_gone(story)
    problem = {"node": "n1", "problem": "the certificate of n1 has expired"}
    story.journal.take(Noted("certificate refused", problem), 1)


def other_model(story: Story) -> None:
    story.say(facts("r1", served_models=("m-base",)))


def without_adapter(story: Story) -> None:
    story.say(facts("r2", adapters=("sql", "poems")))


def shorter(story: Story) -> None:
    story.say(facts("r2", max_model_len_tokens=131_072))


def edge_left(story: Story) -> None:
    story.edge(1, name="e2")
    story.registry.handle(EdgeGone(11), story.now_s)
    story.now_s += 1.5


def no_edge(story: Story) -> None:
    story.registry.handle(EdgeGone(10), story.now_s)


def old_edge(story: Story) -> None:
    story.edge(1, name="e2", version="0.3.1")


def at_home_elsewhere(story: Story) -> None:
    story.edge(1, dispatched=2)
    two = ReplicaUse("r2", 1, dispatched=60)
    report = EdgeReport(9, (two,), (PoolUse("m", requests=60),))
    story.registry.handle(EdgeSaid(10, report), story.now_s)
    story.told = (ReplicaAtEdge(3, 40, 1, 5, 300_000), ReplicaAtEdge(1, 5, 0, 0, 300_000))


def overridden(story: Story, kind: OverrideKind, target: str, *shares: Share) -> None:
    ends_ms = round(1000 * story.registry.wall_s(story.now_s)) + 600_000
    override = Override(kind, target, shares, actor="ada", reason="fan", until_ms=ends_ms)
    story.registry.handle(OverrideSet(key(kind, target), override, "ada"), story.now_s)
    story.serve()


def held_out(story: Story) -> None:
    overridden(story, OverrideKind.HOLD_OPEN, "r1")


def weighed(story: Story) -> None:
    overridden(story, OverrideKind.WEIGHTS, "m", Share("r1", 30), Share("r2", 70))


def weighed_nothing(story: Story) -> None:
    overridden(story, OverrideKind.WEIGHTS, "m", Share("r1", 0), Share("r2", 70))


SPECS = {"other model": (EngineSpec("r1", facts("r1").url, "m", "m"),)}
CASES: dict[str, tuple[Callable[[Story], None], str, bool | None]] = {
    "cordoned": (cordoned, "no new requests: intent cordoned by ada 1.5 min ago: new fan", False),
    "draining": (draining, "no new requests: intent draining; 1 still run on it", False),
    "spare": (spare, "no new requests: intent spare by ada", False),
    "held out": (
        held_out,
        "no new requests: hold held out by ada for another 10.0 min (fan",
        False,
    ),
    "weights": (
        weighed,
        "in rotation, but weights 30 where the largest is 70, by ada for another 10.0 min (fan): "
        "it may hold 8 of 20",
        True,
    ),
    "weight 0": (weighed_nothing, "no new requests: weights 0 where the largest is 70, by", None),
    "failing": (
        failing,
        "no new requests: breaker ejected for 0.0 s: it fails nearly every request "
        "(10 of 10 attempts of 30 s; 90% of at least 8 is too much); probed in 5.0 s",
        False,
    ),
    "impaired": (
        impaired,
        "in rotation, but breaker degraded for 0.0 s: it fails requests, but is not spared "
        "(5 of 40 attempts of 30 s; 5% of at least 20 is too much)",
        True,
    ),
    "refused": (
        refused,
        "no new requests: breaker ejected for 0.0 s: edges find nothing listening on its port "
        "(2 edges say so); probed in",
        False,
    ),
    "probing": (
        probing,
        "no new requests: breaker probing for 0.0 s: a new start of its engine serves; "
        "0 of 1 probes answered",
        False,
    ),
    "ramping": (
        ramping,
        "in rotation, but breaker ramping for 0.0 s: its probes were answered; ejections that "
        "count: 1; it may hold 5 of 20, and more as it answers",
        True,
    ),
    "stumbling": (
        stumbling,
        "no new requests: breaker ejected for 0.0 s: it failed requests while ramping up (2 of ",
        False,
    ),
    "thermal": (hot, "in rotation, but GPU GPU 0 is slowed down by heat at 92 C", True),
    "xid": (with_xid, "no new requests: GPU GPU 0: Xid 79, fell off the bus", False),
    "silent": (
        agent_silent,
        "in rotation, but agent its agent is silent, last report over 5 s ago; the last decision",
        True,
    ),
    "left": (agent_left, "in rotation, but agent its agent left (stopped by systemd), last", True),
    "certificate": (
        turned_away,
        "its agent is disconnected, last report over 5 s ago; the last decision stands; "
        "it was turned away: the certificate of n1 has expired",
        True,
    ),
    "other model": (
        other_model,
        "no new requests: model it serves m-base, not m, as m asks",
        False,
    ),
    "adapters": (
        without_adapter,
        "in rotation, but adapters it lacks poems, sql, which others of m have",
        True,
    ),
    "context": (
        shorter,
        "in rotation, but context it takes 4,096 tokens, others of m up to 131,072",
        True,
    ),
    "edge left": (edge_left, "in rotation, but edges not connected any more: e2 for 1.5 s", True),
    "no edge": (no_edge, "in rotation, but edges none is connected", True),
    "versions": (
        old_edge,
        "in rotation, but versions edge e2 has 0.3.1, more than one minor from",
        True,
    ),
    "affinity": (
        at_home_elsewhere,
        "in rotation, but affinity 45 of 55 attempts that it could have had went to their "
        "conversation's home",
        True,
    ),
    "stalled": (stalled, "no new requests: engine STALLED", False),
    "ejected": (ejected, "no new requests: engine STALLED", False),
    "hung when idle": (
        hung_when_idle,
        "in rotation, but work edges have 1 on it, and it has run none for 5.0 s: its core hangs",
        True,
    ),
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
    story = Story(*SPECS.get(name, ()))
    story.well()
    happen(story)
    found = story.why()
    assert words in found.headline
    if in_rotation is None:
        return  # it is open, and has no slot
    assert found.in_rotation is in_rotation
    route = story.registry.replicas["r1"].route
    assert route is not None
    assert in_rotation is (route.serving is Serving.OPEN)  # what is said is what is done


def test_operators_can_read_of_every_look() -> None:
    page = (pathlib.Path(__file__).parents[4] / "docs" / "operating.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (?:blocks|limits|tells)", page, re.MULTILINE)
    assert rows == list(LOOKS)

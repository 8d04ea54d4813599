"""The registry: what it makes of what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from controlplane.core import registry as registry_module
from controlplane.core.events import (
    AgentGone,
    AgentSaid,
    Direct,
    EdgeGone,
    EdgeSaid,
    Effect,
    EndStream,
    IntentSet,
    Loaded,
    Noted,
    Refusal,
    Save,
    Tick,
    Transition,
)
from controlplane.core.placement import EngineSpec, Placement
from controlplane.core.records import ReplicaRecord, Wish, unpack
from controlplane.core.registry import Registry
from tests.fakes.dice import Loaded as Dice
from tests.fakes.peers import facts, sample
from trimtab.model import (
    AgentMessage,
    Bye,
    EdgeHello,
    EdgeReport,
    EngineSample,
    EngineState,
    HistogramDelta,
    Intent,
    NodeHello,
    Pool,
    ProbeResult,
    Refused,
    ReplicaUse,
    Report,
    Serving,
)

START_S = 1000.0


class Fleet:
    """A registry with its time."""

    def __init__(self, *engines: EngineSpec, pools: Sequence[Pool] = ()) -> None:
        self.now_s = START_S
        self.registry = Registry(Placement(pools, engines), Dice(), self.now_s)
        self.seq = 0

    def say(self, stream: int, message: AgentMessage) -> list[Effect]:
        return list(self.registry.handle(AgentSaid(stream, message), self.now_s))

    def hello(self, stream: int = 1, node: str = "n1", instance: str = "i") -> list[Effect]:
        return self.say(stream, NodeHello(node, "1", instance))

    def report(self, stream: int, *samples: EngineSample) -> list[Effect]:
        self.seq += 1
        return self.say(stream, Report(self.seq, samples))

    def ready(self, *names: str, stream: int = 1) -> None:
        """These replicas are known and READY."""
        self.hello(stream)
        for name in names:
            self.say(stream, facts(name))
        self.report(stream, *(sample(name) for name in names))

    def tick(self, seconds: float) -> list[Effect]:
        self.now_s += seconds
        return list(self.registry.handle(Tick(), self.now_s))

    def load(self, health: Serving, *names: str) -> list[Effect]:
        records = {name: ReplicaRecord("n1", facts(name), health) for name in names}
        return list(self.registry.handle(Loaded(records, {}), self.now_s))

    def serving(self, name: str = "r1") -> Serving:
        route = self.registry.replicas[name].route
        assert route is not None
        return route.serving

    def reason(self, name: str = "r1") -> str:
        route = self.registry.replicas[name].route
        assert route is not None
        return route.reason


def of(kind: type, effects: Sequence[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def test_facts_alone_open_nothing() -> None:
    fleet = Fleet()
    fleet.hello()
    effects = fleet.say(1, facts("r1"))
    assert fleet.serving() is Serving.CLOSED
    assert fleet.reason() == "no report yet"
    (save,) = of(Save, effects)
    assert isinstance(save, Save)
    assert save.key == "trimtab/replicas/r1"
    assert save.value is not None
    record = unpack(save.value, ReplicaRecord)
    assert record is not None
    assert (record.node, record.health) == ("n1", Serving.CLOSED)


def test_a_good_report_opens_and_is_logged_once_with_evidence() -> None:
    fleet = Fleet()
    fleet.hello()
    fleet.say(1, facts("r1"))
    effects = fleet.report(1, sample("r1", running=3, reason="serving"))
    again = fleet.report(1, sample("r1", running=4, reason="serving"))

    assert fleet.serving() is Serving.OPEN
    (transition,) = of(Transition, effects)
    assert isinstance(transition, Transition)
    assert transition.state == (EngineState.UNKNOWN, EngineState.READY)
    assert transition.serving == (Serving.CLOSED, Serving.OPEN)
    assert transition.reason == "engine READY: serving"
    assert transition.evidence["running"] == 3
    assert len(of(Save, effects)) == 1
    assert again == []


def test_a_state_without_a_new_decision_is_logged_too() -> None:
    fleet = Fleet()
    fleet.ready("r1")
    (transition,) = fleet.report(1, sample("r1", EngineState.WARMING))
    assert isinstance(transition, Transition)
    assert transition.serving == (Serving.OPEN, Serving.OPEN)


def test_reports_of_an_unchanged_fleet_do_not_touch_the_routing() -> None:
    fleet = Fleet()
    fleet.ready("r1", "r2")
    version = fleet.registry.routing_version
    for number in range(10):
        fleet.report(1, sample("r1", running=number, reason=f"{number} running"), sample("r2"))
        fleet.tick(0.5)
    assert fleet.registry.routing_version == version


def test_a_stall_closes_then_loses_and_a_warm_up_is_given_longer() -> None:
    fleet = Fleet()
    fleet.ready("r1", "r2")
    fleet.report(1, sample("r1"), sample("r2", EngineState.WARMING))
    seen = []
    for seconds in (3, 12, 61):
        stalled = [
            sample(name, EngineState.STALLED, no_progress_ms=seconds * 1000)
            for name in ("r1", "r2")
        ]
        fleet.report(1, *stalled)
        seen.append((fleet.serving("r1"), fleet.serving("r2")))
    assert seen == [
        (Serving.CLOSED, Serving.CLOSED),
        (Serving.LOST, Serving.CLOSED),
        (Serving.LOST, Serving.LOST),
    ]


def test_silence_keeps_the_decision_and_says_so() -> None:
    fleet = Fleet()
    fleet.ready("r1")
    fleet.tick(1.9)
    assert fleet.reason() == "engine READY"
    fleet.tick(1.0)
    assert fleet.serving() is Serving.OPEN
    assert "its agent is silent, last report over 2 s ago" in fleet.reason()
    fleet.registry.handle(AgentGone(1), fleet.now_s)
    fleet.tick(20 * 3600)
    assert fleet.serving() is Serving.OPEN
    assert "its agent is disconnected" in fleet.reason()


def test_bye_keeps_the_decision() -> None:
    fleet = Fleet()
    fleet.ready("r1")
    fleet.say(1, Bye("update"))
    fleet.registry.handle(AgentGone(1), fleet.now_s)
    fleet.tick(1.0)
    assert fleet.serving() is Serving.OPEN
    assert "its agent left (update)" in fleet.reason()


def test_a_lost_replica_stays_lost_while_its_agent_is_silent() -> None:
    fleet = Fleet()
    fleet.ready("r1")
    fleet.report(1, sample("r1", EngineState.DEAD))
    fleet.tick(60.0)
    fleet.report(1, sample("r1", EngineState.UNKNOWN))
    assert fleet.serving() is Serving.LOST


def test_the_end_of_a_drain_is_told_once() -> None:
    fleet = Fleet()
    fleet.ready("r1")
    edge = EdgeHello("e1", instance="i")
    fleet.registry.handle(EdgeSaid(9, edge), fleet.now_s)
    busy = EdgeReport(1, (ReplicaUse("r1", inflight=2),))
    fleet.registry.handle(EdgeSaid(9, busy), fleet.now_s)
    fleet.registry.handle(IntentSet("r1", Wish(Intent.DRAINING, at_s=START_S)), fleet.now_s)
    assert noted(fleet.tick(5.0), "drained") == []
    fleet.registry.handle(EdgeSaid(9, EdgeReport(2)), fleet.now_s)
    assert noted(fleet.tick(0.5), "drained") == [{"replica": "r1", "after_s": 5.5}]
    assert noted(fleet.tick(0.5), "drained") == []


def noted(effects: Sequence[Effect], what: str) -> list[Mapping[str, object]]:
    return [e.fields for e in effects if isinstance(e, Noted) and e.what == what]


@pytest.mark.parametrize("intent", [Intent.CORDONED, Intent.DRAINING, Intent.SPARE])
def test_intents_close_and_open_again(intent: Intent) -> None:
    fleet = Fleet()
    fleet.ready("r1")
    effects = fleet.registry.handle(IntentSet("r1", Wish(intent, "fan", "ada")), fleet.now_s)
    assert fleet.serving() is Serving.CLOSED
    assert [type(effect) for effect in effects] == [Noted, Transition]
    assert fleet.registry.replicas["r1"].health is Serving.OPEN
    fleet.registry.handle(IntentSet("r1", Wish()), fleet.now_s)
    assert fleet.serving() is Serving.OPEN
    assert fleet.registry.handle(IntentSet("gone", Wish()), fleet.now_s) == []


def test_the_first_message_is_a_hello() -> None:
    fleet = Fleet()
    assert fleet.say(1, facts("r1")) == [EndStream(1, "the first message must be a NodeHello")]
    assert fleet.registry.handle(EdgeSaid(2, EdgeReport(1)), START_S) == [
        EndStream(2, "the first message must be an EdgeHello")
    ]
    assert fleet.registry.replicas == {}


def test_facts_that_make_no_sense_are_refused_once() -> None:
    fleet = Fleet()
    fleet.hello()
    first = fleet.say(1, facts("r1", url="nowhere"))
    second = fleet.say(1, facts("r1", url="nowhere"))
    (told,) = of(Direct, first)
    assert isinstance(told, Direct)
    assert isinstance(told.directive, Refused)
    assert told.directive.reason.startswith("facts refused: url 'nowhere' is not an http URL")
    assert [type(effect) for effect in second] == [Refusal]


def test_another_connected_node_cannot_take_a_replica() -> None:
    fleet = Fleet()
    fleet.ready("r1")
    fleet.hello(2, "n2")
    fleet.say(2, facts("r1"))
    fleet.report(2, sample("r1", EngineState.DEAD))
    assert fleet.serving() is Serving.OPEN
    assert fleet.registry.replicas["r1"].node == "n1"

    fleet.registry.handle(AgentGone(1), fleet.now_s)
    fleet.say(2, facts("r1"))
    fleet.report(2, sample("r1", EngineState.DEAD))
    assert fleet.registry.replicas["r1"].node == "n2"
    assert fleet.serving() is Serving.LOST


def test_a_sample_needs_facts_first() -> None:
    fleet = Fleet(EngineSpec("planned", "http://h:1"))
    fleet.hello()
    effects = fleet.report(1, sample("planned"), sample("unheard of"))
    told = [effect.directive for effect in effects if isinstance(effect, Direct)]
    assert told == [
        Refused("sample refused: send EngineFacts for planned first"),
        Refused("sample refused: send EngineFacts for unheard of first"),
    ]


def test_replicas_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "REPLICA_LIMIT", 2)
    fleet = Fleet()
    fleet.hello()
    for name in ("r1", "r2", "r3"):
        fleet.say(1, facts(name))
    assert sorted(fleet.registry.replicas) == ["r1", "r2"]


def test_a_probe_result_is_for_later() -> None:
    fleet = Fleet()
    fleet.hello()
    assert fleet.say(1, ProbeResult(1, "r1", ok=True)) == []


# Configuration


def test_configured_replicas_are_there_from_the_start() -> None:
    fleet = Fleet(EngineSpec("gpu0", "http://h:1", "big"), pools=[Pool("big")])
    route = fleet.registry.replicas["gpu0"].route
    assert route is not None
    assert (route.pool, route.serving, route.reason) == ("big", Serving.CLOSED, "no report yet")
    fleet.tick(48 * 3600)
    assert "gpu0" in fleet.registry.replicas


def test_a_configured_engine_that_its_agent_calls_otherwise_is_one_replica() -> None:
    fleet = Fleet(EngineSpec("cp-1", "http://h:1", "big", named=False), pools=[Pool("big")])
    fleet.hello()
    effects = fleet.say(1, facts("n1-1", url="http://h:1"))
    assert list(fleet.registry.replicas) == ["n1-1"]
    route = fleet.registry.replicas["n1-1"].route
    assert route is not None
    assert route.pool == "big"
    assert Save("trimtab/replicas/cp-1", None) in effects


def test_pools_are_configured_or_found() -> None:
    fleet = Fleet(pools=[Pool("big", ("gpt",))])
    fleet.hello()
    fleet.say(1, facts("r1", served_models=("gpt",)))
    fleet.say(1, facts("r2", served_models=("tiny",)))
    fleet.say(1, facts("r3", served_models=()))
    assert fleet.registry.pools() == {"big", "tiny"}


def test_models_that_cannot_be_read_just_now_are_not_lost() -> None:
    fleet = Fleet()
    fleet.ready("r1")
    fleet.say(1, facts("r1", adapters=("sql",)))
    fleet.say(1, facts("r1", served_models=(), max_model_len_tokens=None))
    route = fleet.registry.replicas["r1"].route
    assert route is not None
    assert (route.pool, route.max_model_len_tokens, route.adapters) == ("m", 4096, ("sql",))
    fleet.say(1, facts("r1", url="http://elsewhere:1", served_models=()))
    moved = fleet.registry.replicas["r1"].route
    assert moved is not None
    assert moved.pool == ""


def test_adapters_that_come_and_go_are_told() -> None:
    fleet = Fleet()
    fleet.ready("r1")
    for adapters in (("sql",), ("sql", "de"), ()):
        version = fleet.registry.routing_version
        fleet.say(1, facts("r1", adapters=adapters))
        route = fleet.registry.replicas["r1"].route
        assert route is not None
        assert (route.pool, route.adapters) == ("m", adapters)
        assert fleet.registry.routing_version > version


# Restart


def test_what_was_stored_stands_until_its_agent_is_heard() -> None:
    fleet = Fleet()
    effects = fleet.load(Serving.OPEN, "r1")
    assert effects == []
    assert fleet.serving() is Serving.OPEN
    assert fleet.reason() == "as before the restart, no report yet"
    fleet.tick(60.0)
    assert fleet.serving() is Serving.OPEN
    fleet.ready("r1")
    assert fleet.reason() == "engine READY"
    assert fleet.report(1, sample("r1")) == []


def test_intents_are_loaded_also_for_replicas_not_seen_yet() -> None:
    fleet = Fleet(EngineSpec("planned", "http://h:1"))
    wishes = {"planned": Wish(Intent.SPARE), "later": Wish(Intent.CORDONED, "fan", "ada")}
    fleet.registry.handle(Loaded({}, wishes), fleet.now_s)
    assert fleet.reason("planned") == "kept as a spare; no report yet"
    fleet.ready("later")
    assert fleet.serving("later") is Serving.CLOSED
    assert fleet.reason("later") == "cordoned by ada: fan; engine READY"


def test_a_record_of_an_engine_that_was_moved_is_passed_over() -> None:
    fleet = Fleet(EngineSpec("r1", "http://new:1", "m"))
    fleet.load(Serving.OPEN, "r1")
    route = fleet.registry.replicas["r1"].route
    assert route is not None
    assert (route.url, route.serving) == ("http://new:1", Serving.CLOSED)


def test_settled_by_time_or_by_hearing_everyone() -> None:
    fleet = Fleet()
    assert not fleet.registry.settled(START_S)
    assert fleet.registry.settled(START_S + 3.0)

    fleet = Fleet()
    fleet.load(Serving.OPEN, "r1", "r2")
    fleet.ready("r1")
    assert not fleet.registry.settled(START_S)
    fleet.ready("r2")
    assert fleet.registry.settled(START_S)
    fleet.say(1, facts("r3"))
    assert fleet.registry.settled(START_S), "settled is for good"


# Forgetting


def test_a_replica_nobody_speaks_of_is_forgotten_after_a_day() -> None:
    fleet = Fleet()
    fleet.load(Serving.OPEN, "r1")
    fleet.tick(24 * 3600 - 1)
    assert "r1" in fleet.registry.replicas
    effects = fleet.tick(1)
    assert fleet.registry.replicas == {}
    assert Save("trimtab/replicas/r1", None) in effects
    assert Save("trimtab/intents/r1", None) in effects


def test_a_replica_that_its_own_agent_names_no_more_is_forgotten_soon() -> None:
    fleet = Fleet(EngineSpec("r2", "http://127.0.0.1:8000/r2"))
    fleet.load(Serving.OPEN, "r1", "r2", "r3")
    fleet.ready("r3")
    for _ in range(19):
        fleet.tick(0.5)
        fleet.report(1, sample("r3"))
        assert fleet.serving("r1") is Serving.OPEN
    fleet.tick(0.5)
    assert sorted(fleet.registry.replicas) == ["r2", "r3"]
    assert fleet.serving("r2") is Serving.CLOSED
    assert fleet.reason("r2") == "its agent does not watch it any more"


def test_nodes_that_are_gone_are_forgotten() -> None:
    fleet = Fleet()
    fleet.hello()
    fleet.registry.handle(AgentGone(1), fleet.now_s)
    fleet.tick(24 * 3600)
    assert fleet.registry.agents.by_node == {}


# Edges and counters


def test_edges_come_and_go() -> None:
    fleet = Fleet()
    (noted,) = fleet.registry.handle(EdgeSaid(5, EdgeHello("e1")), START_S)
    assert isinstance(noted, Noted)
    assert fleet.registry.handle(EdgeSaid(5, EdgeReport(1)), START_S) == []
    (left,) = fleet.registry.handle(EdgeGone(5), START_S)
    assert isinstance(left, Noted)
    assert fleet.registry.edges.by_name == {}


def test_tokens_are_counted_within_one_start_of_the_engine() -> None:
    fleet = Fleet()
    fleet.ready("r1")
    for epoch, total in ((1, 100), (1, 150), (1, 120), (2, 40), (2, 70)):
        fleet.report(1, sample("r1", generation_tokens_total=total, epoch=epoch))
    ttft = HistogramDelta((0.5, float("nan"), float("inf")), (2, 3, 1), 9.0)
    fleet.report(1, sample("r1", ttft=ttft))
    counted = fleet.registry.replicas["r1"].minute.totals(fleet.now_s)
    assert dict(counted) == {"tokens": 50 + 30, ("ttft", 0.5): 2, ("ttft", float("inf")): 1}

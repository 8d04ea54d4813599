"""Breakers in the registry: agents' words at once, edges' counts at ticks, probes in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controlplane.core.events import (
    AgentGone,
    AgentSaid,
    Direct,
    EdgeSaid,
    Effect,
    Event,
    IntentSet,
    Loaded,
    Noted,
    Save,
    Tick,
)
from controlplane.core.placement import Placement
from controlplane.core.records import ReplicaRecord, Wish, unpack
from controlplane.core.registry import Registry
from tests.fakes.dice import Loaded as Dice
from tests.fakes.peers import facts, sample
from trimtab.model import (
    AgentMessage,
    BreakerState,
    Cohort,
    EdgeHello,
    EdgeReport,
    EngineState,
    GpuSample,
    GpuState,
    HistogramDelta,
    Intent,
    NodeHello,
    Outcome,
    OutcomeCount,
    PoolUse,
    Probe,
    ProbeResult,
    ReplicaUse,
    Report,
    Serving,
)
from trimtab.policy.breaker import Breaker

S = BreakerState
AGENT, EDGES = 1, (11, 12)
START_S = 10_000.0
WALL_OFFSET_S = 1.7e9


class Fleet:
    """A leader, one agent that reports on all replicas twice a second, two edges."""

    def __init__(self, *names: str, offset_s: float = WALL_OFFSET_S) -> None:
        self.now_s = START_S
        self.registry = Registry(Placement(), Dice(), START_S, wall_offset_s=offset_s)
        self.samples = {name: sample(name) for name in names}
        self.failing: dict[str, Outcome] = {}
        self.silent_since_s: dict[str, float] = {}
        self.gpus: tuple[GpuSample, ...] = ()
        self.probes_end: bool | None = True
        self.probe_outcome = Outcome.UNSPECIFIED
        self.agent_up = True
        self.requests = 0
        self.log: list[Effect] = []
        self.store: dict[str, bytes | None] = {}

    def connect(self) -> None:
        self.say(NodeHello("n1"))
        for stream in EDGES:
            self.handle(EdgeSaid(stream, EdgeHello(f"e{stream}")))
        for name in self.samples:
            self.say(facts(name))

    def say(self, message: AgentMessage) -> None:
        self.handle(AgentSaid(AGENT, message))

    def handle(self, event: Event) -> None:
        for effect in self.registry.handle(event, self.now_s):
            self.log.append(effect)
            if isinstance(effect, Save):
                self.store[effect.key] = effect.value
            asked = effect.directive if isinstance(effect, Direct) else None
            if isinstance(asked, Probe) and self.agent_up and self.probes_end is not None:
                number, name, outcome = asked.probe_id, asked.replica, self.probe_outcome
                self.say(ProbeResult(number, name, self.probes_end, outcome=outcome))

    def live(self, seconds: float) -> None:
        """Time passes, everybody reports."""
        for _ in range(round(seconds * 2)):
            self.now_s += 0.5
            if self.agent_up:
                self.say(Report(0, tuple(self.samples.values()), self.gpus))
            for stream in EDGES:
                uses = tuple(self.use(name) for name in self.samples)
                pool = PoolUse("m", requests=self.requests)
                self.handle(EdgeSaid(stream, EdgeReport(0, uses, (pool,))))
            self.handle(Tick())

    def use(self, name: str) -> ReplicaUse:
        """Five attempts at each edge in each half second; they end as told."""
        if self.serving(name) is not Serving.OPEN:
            return ReplicaUse(name)
        if name in self.silent_since_s:
            unanswered_ms = round(1000 * (self.now_s - self.silent_since_s[name]))
            return ReplicaUse(name, inflight=1, unanswered_ms=unanswered_ms)
        outcome = self.failing.get(name, Outcome.OK)
        ended = (OutcomeCount(outcome, 5),)
        return ReplicaUse(name, dispatched=5, outcomes=ended, cohorts=(Cohort(0, 5, ended),))

    def set(self, name: str, state: EngineState = EngineState.READY, **changes: Any) -> None:
        self.samples[name] = sample(name, state, **changes)

    def breaker(self, name: str = "r1") -> Breaker:
        return self.registry.replicas[name].standing.breaker

    def serving(self, name: str = "r1") -> Serving:
        route = self.registry.replicas[name].route
        assert route is not None
        return route.serving

    def moves(self, name: str = "r1") -> list[tuple[object, object]]:
        """The moves of a breaker so far."""
        noted = [e for e in self.log if isinstance(e, Noted) and e.what == "breaker moved"]
        return [(e.fields["from"], e.fields["to"]) for e in noted if e.fields["replica"] == name]

    def probes(self) -> Sequence[Probe]:
        """Everything that was asked."""
        told = [effect.directive for effect in self.log if isinstance(effect, Direct)]
        return [directive for directive in told if isinstance(directive, Probe)]


def fleet(*names: str) -> Fleet:
    """A fleet in which all is well."""
    made = Fleet(*names)
    made.connect()
    made.live(1.0)
    assert {made.breaker(name).state for name in names} == {S.HEALTHY}
    return made


def test_what_serves_at_first_sight_is_in_use_at_once() -> None:
    made = Fleet("r1")
    made.connect()
    assert made.serving() is Serving.CLOSED
    made.say(Report(0, (sample("r1"),)))
    assert made.serving() is Serving.OPEN
    assert made.moves() == [("JOINING", "HEALTHY")]


def test_an_engine_seen_starting_is_probed_first() -> None:
    made = Fleet("r1")
    made.connect()
    made.set("r1", EngineState.STARTING)
    made.live(5.0)
    assert made.probes() == []
    made.set("r1")
    made.say(Report(0, tuple(made.samples.values())))
    assert made.serving() is Serving.CLOSED
    made.live(0.5)
    assert made.breaker().state is S.RAMPING
    assert made.serving() is Serving.OPEN
    assert len(made.probes()) == 1
    made.live(16.0)
    assert made.moves()[-1] == ("RAMPING", "HEALTHY")


def test_an_engine_whose_models_are_not_known_yet_is_not_probed() -> None:
    made = Fleet("r1")
    made.connect()
    made.say(facts("r1", served_models=(), url="http://h:2"))
    made.set("r1")
    made.live(2.0)
    assert made.breaker().state is S.JOINING
    made.say(facts("r1", url="http://h:2"))
    made.live(0.5)
    assert made.breaker().state is S.HEALTHY


def test_a_dead_engine_is_out_at_once_and_its_restart_is_probed() -> None:
    made = fleet("r1", "r2")
    made.set("r1", EngineState.DEAD)
    made.say(Report(0, tuple(made.samples.values())))
    assert (made.breaker().state, made.serving()) == (S.EJECTED, Serving.LOST)
    made.live(60.0)
    assert made.serving("r2") is Serving.OPEN
    made.set("r1", epoch=2)
    made.live(4.0)
    assert made.breaker().state is S.RAMPING
    assert made.moves()[-2:] == [("EJECTED", "PROBING"), ("PROBING", "RAMPING")]


def test_a_probe_that_fails_sends_it_back_to_wait() -> None:
    made = fleet("r1", "r2")
    made.set("r1", EngineState.DEAD)
    made.live(1.0)
    made.probes_end = False
    made.set("r1", epoch=2)
    made.live(1.0)
    assert made.breaker().state is S.EJECTED
    assert made.breaker().ejections == 2


def test_one_probe_at_a_time_and_again_when_nothing_comes() -> None:
    made = fleet("r1", "r2")
    made.set("r1", EngineState.DEAD)
    made.live(1.0)
    made.probes_end = None
    made.set("r1", epoch=2)
    made.live(34.0)
    assert len(made.probes()) == 1
    made.live(2.0)
    assert len(made.probes()) == 2
    assert made.breaker().state is S.PROBING
    stale = made.probes()[0]
    made.say(ProbeResult(stale.probe_id, "r1", ok=False))
    made.say(ProbeResult(99, "nobody", ok=False))
    made.live(1.0)
    assert made.breaker().state is S.PROBING


def test_overload_fails_no_probe_and_clients_decide() -> None:
    made = fleet("r1", "r2")
    made.set("r1", EngineState.DEAD)
    made.live(1.0)
    made.probe_outcome = Outcome.OVERLOAD
    made.set("r1", epoch=2)
    made.live(2.0)
    assert made.breaker().state is S.PROBING
    made.live(2.0)
    assert (made.breaker().state, made.breaker().ejections) == (S.RAMPING, 1)
    assert len(made.probes()) == 2
    made.live(10.0)
    assert made.breaker().state is S.HEALTHY


def test_without_its_agent_clients_are_the_probes() -> None:
    made = fleet("r1", "r2")
    made.failing["r1"] = Outcome.HARD
    made.live(2.0)
    assert made.breaker().state is S.EJECTED
    made.failing.clear()
    made.agent_up = False
    made.handle(AgentGone(AGENT))
    made.live(12.0)
    assert made.breaker().state is S.RAMPING
    assert made.probes() == []
    made.live(20.0)
    assert made.breaker().state is S.HEALTHY


def test_what_edges_count_ejects_and_what_is_no_failure_does_not() -> None:
    made = fleet("r1", "r2", "r3", "r4", "r5")
    made.failing = {
        "r1": Outcome.OVERLOAD,
        "r2": Outcome.CLIENT,
        "r3": Outcome.PATH,
        "r4": Outcome.SOFT,
    }
    made.live(60.0)
    states = [made.breaker(name).state for name in ("r1", "r2", "r3", "r5")]
    assert states == [S.HEALTHY] * 4
    assert made.breaker("r4").state is S.EJECTED
    assert made.serving("r4") is Serving.CLOSED
    assert made.breaker("r4").ejections >= 2


def test_all_at_once_are_not_ejected_and_a_person_is_told() -> None:
    made = fleet("r1", "r2")
    made.failing = {"r1": Outcome.SOFT, "r2": Outcome.SOFT}
    made.live(20.0)
    assert made.breaker("r1").state is S.DEGRADED
    assert made.serving("r2") is Serving.OPEN
    assert made.registry.breakers.alarm("m").startswith("2 of 2 replicas began to fail")
    made.failing.clear()
    made.live(120.0)
    assert made.registry.breakers.alarm("m") == ""
    assert [e.what for e in made.log if isinstance(e, Noted) and "common" in e.what] == [
        "failures have a common cause",
        "failures have no common cause any more",
    ]
    assert made.registry.breakers.alarm("no such pool") == ""


def test_a_partly_failing_one_goes_only_when_the_others_are_known_to_suffice() -> None:
    made = fleet("r1", "r2")
    made.requests = 1
    full: dict[str, Any] = {"running": 16, "waiting": 4}
    for second in range(30):
        for name in ("r1", "r2"):
            full |= {"generation_tokens_total": 500 * second, "finished_total": 10 * second}
            made.set(name, **full)
        made.live(1.0)
    half = (OutcomeCount(Outcome.SOFT, 1),)
    for _ in range(60):
        made.handle(
            EdgeSaid(EDGES[0], EdgeReport(0, (ReplicaUse("r1", cohorts=(Cohort(0, 0, half),)),)))
        )
        made.live(0.5)
    assert ("DEGRADED", "EJECTED") in made.moves()
    unknown = fleet("r1", "r2")
    for _ in range(60):
        unknown.handle(
            EdgeSaid(EDGES[0], EdgeReport(0, (ReplicaUse("r1", cohorts=(Cohort(0, 0, half),)),)))
        )
        unknown.live(0.5)
    assert unknown.moves()[1:] == [("HEALTHY", "DEGRADED")]


def test_a_cordoned_one_is_nobodys_support() -> None:
    made = fleet("r1", "r2")
    made.handle(IntentSet("r2", Wish(Intent.CORDONED)))
    made.failing["r1"] = Outcome.SOFT
    made.live(10.0)
    assert made.breaker("r1").state is S.DEGRADED
    assert made.serving("r1") is Serving.OPEN


def test_a_slow_newcomer_does_not_grow() -> None:
    made = fleet("r1", "r2")
    tokens = HistogramDelta((0.1,), (10,), 0.5)
    slow = HistogramDelta((0.1,), (10,), 0.9)
    made.set("r2", itl=tokens)
    made.set("r1", EngineState.DEAD)
    made.live(1.0)
    made.set("r1", epoch=2, itl=slow)
    made.live(20.0)
    assert (made.breaker().state, made.breaker().cap_slots) == (S.RAMPING, 5)
    made.set("r1", epoch=2, itl=tokens)
    made.live(0.5)
    assert made.breaker().cap_slots == 7.5


def test_a_lost_gpu_is_the_agents_word() -> None:
    made = fleet("r1", "r2")
    made.set("r1", gpus=(3,))
    made.gpus = (GpuSample(3, state=GpuState.LOST),)
    made.live(0.5)
    assert made.serving("r1") is Serving.LOST
    route = made.registry.replicas["r1"].route
    assert route is not None
    assert "GPU 3 is lost" in route.reason
    assert made.serving("r2") is Serving.OPEN


def test_moves_are_told_with_their_evidence() -> None:
    made = fleet("r1", "r2")
    made.failing["r1"] = Outcome.SOFT
    made.live(2.0)
    (noted,) = [e for e in made.log if isinstance(e, Noted) and e.fields.get("to") == "EJECTED"]
    assert noted.fields["cause"] == "it fails nearly every request"
    assert (noted.fields["dispatched"], noted.fields["failed"]) == (60, 40)
    assert noted.fields["wait_s"] == 5.0


def restarted(old: Fleet, *names: str, later_s: float = 2.0, steps_s: float = 0.0) -> Fleet:
    """A new leader with what the old one stored; the wall clock may have stepped meanwhile."""
    new = Fleet(*names, offset_s=WALL_OFFSET_S + old.now_s + later_s - START_S + steps_s)
    records = {}
    for key, value in old.store.items():
        record = unpack(value or b"", ReplicaRecord)
        if record is not None:
            records[key.removeprefix("trimtab/replicas/")] = record
    new.handle(Loaded(records, {}))
    return new


def test_a_new_leader_keeps_ejections_and_their_waits() -> None:
    old = fleet("r1", "r2")
    old.failing["r1"] = Outcome.SOFT
    old.live(2.0)
    wait_s = old.breaker().until_s - old.now_s
    new = restarted(old, "r1", "r2")
    kept = new.breaker()
    assert (kept.state, kept.cause, kept.ejections) == (S.EJECTED, old.breaker().cause, 1)
    assert abs(kept.until_s - new.now_s - (wait_s - 2.0)) < 0.2
    assert (new.serving("r1"), new.serving("r2")) == (Serving.CLOSED, Serving.OPEN)
    new.connect()
    new.live(7.0)
    assert new.breaker().state is S.RAMPING


def test_a_clock_that_steps_makes_no_wait_longer_than_the_longest() -> None:
    old = fleet("r1", "r2")
    old.failing["r1"] = Outcome.SOFT
    old.live(2.0)
    new = restarted(old, "r1", "r2", steps_s=-3600.0)
    assert new.breaker().until_s <= new.now_s + 360.0
    assert restarted(old, "r1", "r2", steps_s=3600.0).breaker().until_s <= new.now_s


def test_a_new_leader_goes_on_with_a_ramp() -> None:
    old = fleet("r1", "r2")
    old.set("r1", EngineState.DEAD)
    old.live(1.0)
    old.set("r1", epoch=2)
    old.live(7.0)
    cap_slots = old.breaker().cap_slots
    assert cap_slots > 4
    new = restarted(old, "r1", "r2")
    assert (new.breaker().state, new.breaker().cap_slots) == (S.RAMPING, cap_slots)
    assert new.serving("r1") is Serving.OPEN


def test_what_was_well_is_well_for_a_new_leader() -> None:
    old = fleet("r1")
    new = restarted(old, "r1")
    assert new.breaker().state is S.HEALTHY
    new.set("r1", epoch=5)
    new.connect()
    new.live(1.0)
    assert new.moves() == []
    assert new.breaker().epoch == 5


def test_an_engine_that_was_starting_is_still_cold_for_a_new_leader() -> None:
    old = Fleet("r1")
    old.connect()
    old.set("r1", EngineState.STARTING)
    old.live(2.0)
    new = restarted(old, "r1")
    new.connect()
    new.live(0.5)
    assert new.moves() == [("JOINING", "PROBING"), ("PROBING", "RAMPING")]


def test_steady_breakers_are_not_stored_again() -> None:
    made = fleet("r1", "r2")
    made.live(5.0)
    made.log.clear()
    made.live(60.0)
    assert [effect for effect in made.log if isinstance(effect, Save)] == []


def test_pools_that_are_gone_are_forgotten() -> None:
    made = fleet("r1")
    made.say(facts("r1", served_models=("other",), epoch=1))
    made.live(1.0)
    assert set(made.registry.breakers._pools) == {"other"}

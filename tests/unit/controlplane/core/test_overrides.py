"""Operators' overrides in a registry, in virtual time: what they may do, and that they end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controlplane.core.credits import Ledger, open_slots, slots
from controlplane.core.events import (
    AgentSaid,
    BreakerReset,
    EdgeSaid,
    Effect,
    Loaded,
    Noted,
    OverrideSet,
    Save,
    Tick,
)
from controlplane.core.overrides import Overrides, key
from controlplane.core.placement import Placement
from controlplane.core.records import pack, unpack
from controlplane.core.registry import Registry
from tests.fakes import dice
from tests.fakes.peers import facts, sample
from trimtab.model import (
    AgentMessage,
    BreakerState,
    Cohort,
    EdgeHello,
    EdgeReport,
    EngineState,
    NodeHello,
    Outcome,
    OutcomeCount,
    ReplicaUse,
    Report,
    Serving,
)
from trimtab.policy.breaker import SERVING, Hold
from trimtab.steered import Override, OverrideKind, Share

EPOCH_S = 1_000_000.0
NAMES = ("r1", "r2", "r3")
KINDS = [OverrideKind.WEIGHTS, OverrideKind.HOLD_OPEN, OverrideKind.HOLD_CLOSED]


class World:
    """Three replicas of one pool, their agent, one edge, and time."""

    def __init__(self) -> None:
        self.now_s, self.seq = 100.0, 0
        self.states = dict.fromkeys(NAMES, EngineState.READY)
        self.totals = dict.fromkeys(NAMES, 0)
        self.ledger = Ledger()
        self.boot(Loaded({}, {}))

    def boot(self, loaded: Loaded) -> None:
        """A new leader, or the first."""
        self.registry = Registry(
            Placement(()), dice.Loaded(), self.now_s, wall_offset_s=EPOCH_S - 100.0
        )
        self.registry.handle(loaded, self.now_s)
        self.say(NodeHello("n1", "1", "i"))
        self.registry.handle(EdgeSaid(2, EdgeHello("e1")), self.now_s)
        for name in NAMES:
            self.say(facts(name))
        self.seq = 0
        self.report()

    def say(self, message: AgentMessage) -> list[Effect]:
        return list(self.registry.handle(AgentSaid(1, message), self.now_s))

    def report(self) -> list[Effect]:
        self.seq += 1
        for name in NAMES:
            self.totals[name] += 10
        samples = tuple(
            sample(n, state, running=4, waiting=0, generation_tokens_total=self.totals[n])
            for n, state in self.states.items()
        )
        return self.say(Report(self.seq, samples))

    def fails(self, name: str, failed: int) -> None:
        """The edge had 20 attempts, of which so many failed."""
        outcomes = (OutcomeCount(Outcome.SOFT, failed), OutcomeCount(Outcome.OK, 20 - failed))
        use = ReplicaUse(name, cohorts=(Cohort(0, 20, outcomes),))
        self.registry.handle(EdgeSaid(2, EdgeReport(self.seq, (use,))), self.now_s)

    def tick(self, seconds: float = 0.5) -> list[Effect]:
        effects: list[Effect] = []
        for _ in range(round(seconds / 0.5)):
            self.now_s += 0.5
            effects += self.report()
            effects += self.registry.handle(Tick(), self.now_s)
        return effects

    def set(self, kind: OverrideKind, target: str, for_s: float, **weights: float) -> Override:
        wall_ms = round(1000 * self.registry.wall_s(self.now_s))
        override = Override(
            kind,
            target,
            tuple(Share(name, weight) for name, weight in weights.items()),
            actor="ada",
            reason="fan",
            until_ms=wall_ms + round(1000 * for_s),
        )
        self.registry.handle(OverrideSet(key(kind, target), override, "ada"), self.now_s)
        return override

    def limits(self) -> dict[str, int]:
        replicas = self.registry.replicas.values()
        return {name: slots(self.registry.replicas[name], self.now_s) for name in NAMES} | {
            f"{name} now": count for name, count in open_slots(replicas, self.now_s).items()
        }

    def states_now(self) -> list[BreakerState]:
        return [self.registry.replicas[name].standing.breaker.state for name in NAMES]


def test_weights_scale_what_edges_are_given_and_end_by_themselves() -> None:
    world = World()
    replicas, edges = world.registry.replicas.values(), world.registry.edges.by_name
    world.set(OverrideKind.WEIGHTS, "m", 10.0, r1=70, r2=30)
    edges["e1"].reported_at_s = world.now_s
    told = world.ledger.split(replicas, edges, world.now_s)["e1"].credits
    assert {one.replica: one.slots for one in told} == {"r1": 20, "r2": 8, "r3": 20}
    assert {one.replica: one.limit_slots for one in told} == dict.fromkeys(NAMES, 20)
    effects = world.tick(10.0)
    assert Save(key(OverrideKind.WEIGHTS, "m"), None) in effects
    (noted,) = [e for e in effects if isinstance(e, Noted) and e.what == "override expired"]
    assert (noted.fields["pool"], noted.fields["override"]) == ("m", "r1=70 r2=30")
    told = world.ledger.split(replicas, edges, world.now_s)["e1"].credits
    assert {one.slots for one in told} == {20}


def test_hold_open_closes_and_comes_back_by_a_probe() -> None:
    world = World()
    world.set(OverrideKind.HOLD_OPEN, "r1", 5.0)
    world.tick(1.0)
    replica = world.registry.replicas["r1"]
    assert replica.standing.breaker.state is BreakerState.EJECTED
    assert replica.route is not None
    assert replica.route.serving is Serving.CLOSED
    world.tick(6.0)
    breaker = replica.standing.breaker
    assert (breaker.state, breaker.ejections) == (BreakerState.PROBING, 0)


@pytest.mark.parametrize("kind", [OverrideKind.HOLD_CLOSED, OverrideKind.PAUSE])
def test_counts_do_not_eject_who_is_held_in_but_a_dead_engine_is_out(kind: OverrideKind) -> None:
    world = World()
    world.set(kind, "r1" if kind is OverrideKind.HOLD_CLOSED else "", 60.0)
    world.fails("r1", 20)
    world.tick(8.0)
    breaker = world.registry.replicas["r1"].standing.breaker
    assert breaker.state is BreakerState.DEGRADED
    world.states["r1"] = EngineState.DEAD
    world.tick()
    assert world.registry.replicas["r1"].standing.breaker.state is BreakerState.EJECTED


def test_a_pause_freezes_limits_and_ends() -> None:
    world = World()
    world.set(OverrideKind.PAUSE, "", 5.0)
    load = world.registry.replicas["r1"].load
    before = load.slots(16, world.now_s)
    load.refused(world.now_s)
    assert load.slots(16, world.now_s) == before
    world.tick(6.0)
    load.refused(world.now_s)
    assert load.slots(16, world.now_s) < before


def test_a_reset_forgets_and_is_stored() -> None:
    world = World()
    world.states["r1"] = EngineState.DEAD
    world.tick()
    breaker = world.registry.replicas["r1"].standing.breaker
    assert breaker.ejections == 1
    world.states["r1"] = EngineState.READY
    (noted,) = world.registry.handle(BreakerReset("r1", "ada", "seen it"), world.now_s)
    assert noted == Noted(
        "breaker reset", {"replica": "r1", "state": "EJECTED", "reason": "seen it", "actor": "ada"}
    )
    effects = world.tick()
    assert any(isinstance(e, Save) and e.key.endswith("/r1") for e in effects)
    assert world.registry.replicas["r1"].standing.breaker.state is BreakerState.PROBING
    assert world.registry.handle(BreakerReset("nobody", "ada", ""), world.now_s) == []


def test_a_new_leader_keeps_them() -> None:
    world = World()
    override = world.set(OverrideKind.HOLD_OPEN, "r1", 60.0)
    stored = unpack(pack(override), Override)
    assert stored == override
    name = key(OverrideKind.HOLD_OPEN, "r1")
    world.boot(Loaded({}, {}, {name: override}))
    assert world.registry.replicas["r1"].hold is Hold.OPEN
    world.tick()
    assert world.registry.replicas["r1"].standing.breaker.state is BreakerState.EJECTED
    (seen,) = world.registry.overrides.views(world.registry.wall_s(world.now_s))
    assert replace(seen, left_ms=0) == override
    assert seen.left_ms == pytest.approx(59_500, abs=1)


def test_ending_what_is_not_there_is_nothing() -> None:
    assert Overrides().take(OverrideSet(key(OverrideKind.PAUSE, ""), None, "ada"), ()) == []


class OperatorMachine(RuleBasedStateMachine):
    """Operators, engines and edges do anything; what must hold in every tick."""

    @initialize()
    def begin(self) -> None:
        self.world = World()

    @rule(
        kind=st.sampled_from(KINDS),
        name=st.sampled_from(NAMES),
        weights=st.tuples(*[st.sampled_from([0.0, 1.0, 30.0, 70.0])] * 3),
        for_s=st.sampled_from([2.0, 20.0]),
    )
    def override(
        self, kind: OverrideKind, name: str, weights: tuple[float, ...], for_s: float
    ) -> None:
        if kind is OverrideKind.WEIGHTS:
            shares = dict(zip(NAMES, weights, strict=True))
            self.world.set(kind, "m", for_s, **shares)
        else:
            self.world.set(kind, name, for_s)

    @rule(for_s=st.sampled_from([2.0, 20.0]))
    def pause(self, for_s: float) -> None:
        self.world.set(OverrideKind.PAUSE, "", for_s)

    @rule(name=st.sampled_from(NAMES))
    def reset(self, name: str) -> None:
        self.world.registry.handle(BreakerReset(name, "ada", ""), self.world.now_s)

    @rule(name=st.sampled_from(NAMES), state=st.sampled_from([EngineState.READY, EngineState.DEAD]))
    def engine(self, name: str, state: EngineState) -> None:
        self.world.states[name] = state

    @rule(name=st.sampled_from(NAMES), failed=st.integers(0, 20))
    def edge(self, name: str, failed: int) -> None:
        self.world.fails(name, failed)

    @rule(seconds=st.sampled_from([0.5, 3.0]))
    def time(self, seconds: float) -> None:
        before = self.world.states_now()
        self.world.tick(seconds)
        for name, was in zip(NAMES, before, strict=True):
            replica = self.world.registry.replicas[name]
            state = replica.standing.breaker.state
            if self.world.states[name] is EngineState.DEAD and was is not BreakerState.JOINING:
                assert state not in SERVING, "hard evidence ejects, whatever operators want"
            if replica.hold is Hold.OPEN and seconds > 1.0:
                assert state not in SERVING
            assert replica.route is not None
            if state not in SERVING:
                assert replica.route.serving is not Serving.OPEN

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        world = self.world
        limits = world.limits()
        full = {name: limits[name] for name in NAMES}
        now = {name: limits.get(f"{name} now", 0) for name in NAMES}
        assert all(0 <= now[name] <= full[name] for name in NAMES)
        replicas, edges = world.registry.replicas.values(), world.registry.edges.by_name
        edges["e1"].reported_at_s = world.now_s
        for credit in world.ledger.split(replicas, edges, world.now_s)["e1"].credits:
            assert credit.slots <= now[credit.replica]
        is_open = {
            r.name: r.route is not None and r.route.serving is Serving.OPEN for r in replicas
        }
        if any(is_open[name] and full[name] for name in NAMES):
            assert any(now.values()), "weights close no pool"

    def teardown(self) -> None:
        """Everything expires: automation has it all back."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for _ in range(21):
            if len(world.registry.overrides):
                world.tick(1.0)
        assert len(world.registry.overrides) == 0
        for replica in world.registry.replicas.values():
            assert (replica.hold, replica.weights, replica.load.frozen) == (Hold.NONE, {}, False)
        limits = world.limits()
        for name in NAMES:
            assert limits.get(f"{name} now", limits[name]) == limits[name]


TestOperatorMachine = OperatorMachine.TestCase
TestOperatorMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)

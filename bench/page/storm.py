"""The same storm through LiteLLM's rules and through ours, in virtual time, as the page shows it.

Rules: the requests and the engines are the same (equal seeds); our fleet is read by the very code
of the control plane, LiteLLM's by what its workers would send where; both stop in the middle.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from controlplane.core import explanation, view
from controlplane.core.past import Past, tenants
from sim.world.arrivals import Point
from sim.world.controlplane import ControlPlane
from sim.world.scenario import FaultSpec, ReplicaSpec, Scenario, SourceSpec
from sim.world.shapes import Shape
from sim.world.world import World
from trimtab import history, status
from trimtab.model import BreakerState, EngineState, Route, Serving
from trimtab.verdict import judge
from trimtab.views import EdgeView, Fleet, FleetEvent, PoolView, ReplicaView

BASE_S = 1_795_269_600.0  # 14:00 UTC, whatever day it is
WARM_S = 260.0
STORM = Scenario(
    about="Ten minutes of more than two engines can do, then a moment in which one is frozen.",
    duration_s=960.0,
    edges=2,
    replicas=(ReplicaSpec(slots=64, queue_limit=98), ReplicaSpec(slots=64, queue_limit=98)),
    sources=(
        SourceSpec(
            load=(Point(at_s=0.0, load=0.7), Point(at_s=WARM_S, load=1.7)),
            tenant="batch",
            shape=Shape(output_tokens=300),
        ),
        SourceSpec(load=0.15, tenant="chat", shape=Shape(output_tokens=300)),
    ),
)
"""As tests/sim/scenarios; engines refuse beyond 98, one and a half times what they can run."""
FROZEN = FaultSpec(at_s=820.0, kind="freeze", replica="r1", for_s=600.0)


@dataclass
class Frozen:
    """A page's source that stands still."""

    shown: status.Look
    kept: history.History
    explained: dict[str, object] = field(default_factory=dict)

    def remember(self, _at_s: float) -> list[history.Finished]:
        """Nothing happens any more."""
        return []

    def look(self, _at_s: float) -> status.Look:
        """As it was."""
        return self.shown

    def past(self) -> history.History:
        """As it was."""
        return self.kept

    async def explain(self, replica: str) -> object:
        """As it was."""
        return self.explained[replica]


def ours(scenario: Scenario, seed: int = 1) -> Frozen:
    """Our rules."""
    world = World(scenario, "trimtab", seed)
    plane = world.parts.controlplane
    assert plane is not None
    past = Past(BASE_S)

    def look() -> None:
        past.take(plane.registry, world.loop.now_s, BASE_S + world.loop.now_s)
        world.loop.after(1.0, look)

    world.loop.at(0.0, look)
    world.run()
    now_s = world.loop.now_s
    leader = view.Leader("by Trimtab's rules", "cp1", "0.1.0", plane.term, plane.version)
    fleet = view.fleet(leader, plane.registry, plane.subscriptions(), now_s)
    whole = status.Look(
        seen_by="control plane",
        name="cp1",
        fleet=fleet,
        verdict=judge(fleet),
        at_s=BASE_S + now_s,
        since_s=BASE_S,
        facts=(("leader", "cp1"), ("term", "1"), ("edges", f"{len(fleet.edges)} in sync")),
        tenants=tenants(plane.registry.edges.by_name.values(), now_s),
        events=[_dated(event) for event in plane.journal.after(0)[0]],
    )
    return Frozen(whole, past.history, dict(_explained(plane, fleet, now_s)))


def _explained(plane: ControlPlane, fleet: Fleet, now_s: float) -> Iterator[tuple[str, object]]:
    for name in plane.registry.replicas:
        case = explanation.case(plane.registry, fleet, name, now_s, BASE_S + now_s)
        yield name, status.explained(explanation.explain(case, _lately(plane, name)))


def _lately(plane: ControlPlane, name: str) -> tuple[FleetEvent, ...]:
    return tuple(_dated(event) for event in plane.journal.latest(name, explanation.EVENTS_SHOWN))


def _dated(event: FleetEvent) -> FleetEvent:
    return replace(event, at_ms=event.at_ms + round(1000 * BASE_S))


class Theirs:
    """Reads a peer's gateway once a second."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.history = history.History(BASE_S)
        self.events: list[FleetEvent] = []
        self._posts = Counter[str]()
        self._refused = self._asked = 0
        self.minute: deque[tuple[history.Pool, dict[str, int]]] = deque(maxlen=60)
        self._cooling: dict[str, bool] = {}

    def look(self) -> None:
        """Note this moment."""
        world, now_s = self.world, self.world.loop.now_s
        replicas = {name: self._replica(name) for name in world.replicas}
        refused = sum(len(source.client.refusals) for source in world.sources)
        waiting = sum(replica.waiting for replica in replicas.values())
        asked = sum(job.submissions for job in world.jobs)
        pool = history.Pool(asked - self._asked, refused - self._refused, waiting)
        self._refused, self._asked = refused, asked
        self.minute.append(
            (pool, {n: r.engine.generation_tokens for n, r in world.replicas.items()})
        )
        self.history.add(BASE_S + now_s, replicas, {"m": pool})
        world.loop.after(1.0, self.look)

    def _replica(self, name: str) -> history.Replica:
        replica, takes = self.world.replicas[name], self.takes(name)
        posts, seen = len(replica.posts_s), replica.engine
        started, self._posts[name] = posts - self._posts[name], posts
        if self._cooling.get(name, False) != (takes == 0.0):
            self._cooling[name] = takes == 0.0
            text = "in rotation -> EJECTED: cools down" if takes == 0.0 else "back, all at once"
            at_ms = round(1000 * (BASE_S + self.world.loop.now_s))
            self.events.append(FleetEvent(len(self.events) + 1, at_ms, name, "cooldown", text))
        engine = EngineState.STALLED if replica.is_stopped else EngineState.READY
        return history.Replica(
            pool="m",
            started=started,
            inflight=seen.num_running + seen.num_waiting,
            limit=replica.spec.max_num_seqs if takes else 0,
            waiting=seen.num_waiting,
            use=status.code(self.use(takes)),
            engine=status.engine_code(engine),
        )

    def takes(self, name: str) -> float:
        """The share of the workers that would send to it."""
        gateways = self.world.gateways
        return sum(gateway.takes(name) for gateway in gateways) / len(gateways)

    @staticmethod
    def use(takes: float) -> str:
        """A cooldown, in our words."""
        return "ejected" if takes == 0.0 else "healthy" if takes == 1.0 else "avoided"


def theirs(scenario: Scenario, seed: int = 1) -> Frozen:
    """LiteLLM's rules."""
    world = World(scenario, "litellm", seed)
    seen = Theirs(world)
    world.loop.at(0.0, seen.look)
    world.run()
    fleet = _their_fleet(seen)
    whole = status.Look(
        seen_by="simulation",
        name="of 4 workers",
        fleet=fleet,
        verdict=judge(fleet),
        at_s=BASE_S + world.loop.now_s,
        since_s=BASE_S,
        events=seen.events,
    )
    return Frozen(whole, seen.history)


def _their_fleet(seen: Theirs) -> Fleet:
    replicas = []
    for name, replica in seen.world.replicas.items():
        takes, engine = seen.takes(name), replica.engine
        route = Route(name, "m", "sim", "http://sim", "m", Serving.OPEN)
        if takes == 0.0:
            cooled = (Serving.CLOSED, "cools down for 5 s after a 503", None, BreakerState.EJECTED)
            route = Route(name, "m", "sim", "http://sim", "m", *cooled)
        state = EngineState.STALLED if replica.is_stopped else EngineState.READY
        slots = replica.spec.max_num_seqs
        running, waiting = engine.num_running, engine.num_waiting
        made = seen.minute[-1][1][name] - seen.minute[0][1][name]
        shown = ReplicaView(
            route=route,
            state=state,
            limit_slots=slots if takes else 0,
            full_slots=slots,
            inflight=running + waiting,
            running=running,
            waiting=waiting,
            generation_tokens_per_s=made / len(seen.minute),
        )
        replicas.append(shown)
    is_open = [replica for replica in replicas if replica.route.serving is Serving.OPEN]
    shown_pool = PoolView(
        "m",
        len(replicas),
        len(is_open),
        sum(replica.limit_slots for replica in replicas),
        inflight=sum(replica.inflight for replica in replicas),
        queued=sum(replica.waiting or 0 for replica in replicas),
        shed_1m=sum(pool.refused for pool, _ in seen.minute),
        requests_1m=sum(pool.requests for pool, _ in seen.minute),
    )
    edges = (EdgeView("litellm", report_age_ms=0),)
    rules = "by LiteLLM's rules"
    return Fleet(rules, "litellm", 1, 1, "1.106", tuple(replicas), edges, (), (shown_pool,))

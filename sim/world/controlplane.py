"""The control plane process: the very registry, credits, snapshot and subscriptions, no sockets.

Rules: this file stands for controlplane/{loop,saver,state}.py and does what they do, in their
order. Whoever changes those, changes this. The store is a dict, and survives a restart.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TypeVar

from controlplane.core import snapshot
from controlplane.core.credits import Ledger, slots
from controlplane.core.events import (
    AgentGone,
    AgentSaid,
    Direct,
    EdgeGone,
    EdgeSaid,
    Effect,
    EndStream,
    Event,
    IntentSet,
    Loaded,
    Noted,
    Refusal,
    Save,
    Tick,
    Transition,
)
from controlplane.core.journal import Journal
from controlplane.core.placement import Placement
from controlplane.core.records import INTENTS, REPLICAS, ReplicaRecord, Wish, pack, unpack
from controlplane.core.registry import STALE_S, Registry
from controlplane.core.subscription import Subscription
from sim.world.loop import Loop
from sim.world.network import Stream
from sim.world.seen import Steering
from sim.world.trace import Trace
from trimtab.model import (
    Ack,
    AgentDirective,
    AgentMessage,
    BreakerState,
    Credits,
    EdgeHello,
    EdgeMessage,
    EdgePolicy,
    EdgeUpdate,
    Intent,
    Pool,
    Serving,
    Snapshot,
)
from trimtab.policy.dice import Dice

T = TypeVar("T")
POOL = "m"
TICK_S = 0.5
COALESCE_S = 0.05
EPOCH_S = 1_000_000.0
"""Virtual time begins here, in seconds since 1970."""


class AgentPeer:
    """An agent's stream, at the control plane."""

    def __init__(self, number: int, stream: Stream, take: Callable[[AgentDirective], None]) -> None:
        self.number = number
        self.stream = stream
        self.take = take


class EdgePeer:
    """An edge's stream, at the control plane."""

    def __init__(self, number: int, stream: Stream, take: Callable[[EdgeUpdate], None]) -> None:
        self.number = number
        self.stream = stream
        self.take = take
        self.subscription = Subscription()
        self.hello: EdgeHello | None = None


class ControlPlane:
    """See the rules at the top of this file."""

    name = "controlplane"

    def __init__(self, loop: Loop, policy: EdgePolicy, dice: Dice, trace: Trace) -> None:
        self._loop = loop
        self._dice = dice
        self._policy = policy
        self._trace = trace
        self.journal = Journal()
        """What happened, as the page and ctl tell it."""
        self._store: dict[str, bytes] = {}
        self._placement = Placement([Pool(POOL)])
        self._numbers = itertools.count(1)
        self._life = 0
        self.period_s = TICK_S
        self.term = 0
        self.is_up = False
        self._boot()

    # Life

    def start(self) -> None:
        """Begin with what the store knows, in a new term."""
        self._life += 1
        self.term += 1
        self.is_up = True
        self._boot()
        replicas, wishes = self._records(REPLICAS, ReplicaRecord), self._records(INTENTS, Wish)
        self._handle(Loaded(replicas, wishes))
        self._publish()
        self._loop.after(self.period_s, self._tick, self._life)

    def kill(self) -> None:
        """The process is gone, with all its streams."""
        self.is_up = False
        self._life += 1
        streams = [peer.stream for peer in self._agents.values()]
        streams += [peer.stream for peer in self._edges.values()]
        self._boot()
        for stream in streams:
            stream.end()

    # Peers

    def open_agent(self, stream: Stream, take: Callable[[AgentDirective], None]) -> AgentPeer:
        """An agent connected."""
        peer = AgentPeer(next(self._numbers), stream, take)
        self._agents[peer.number] = peer
        return peer

    def agent_said(self, peer: AgentPeer, message: AgentMessage) -> None:
        """An agent's message."""
        if peer.number in self._agents:
            self._handle(AgentSaid(peer.number, message))

    def agent_gone(self, peer: AgentPeer) -> None:
        """An agent's stream ended."""
        if self._agents.pop(peer.number, None) is not None:
            self._handle(AgentGone(peer.number))

    def open_edge(self, stream: Stream, take: Callable[[EdgeUpdate], None]) -> EdgePeer:
        """An edge connected."""
        peer = EdgePeer(next(self._numbers), stream, take)
        self._edges[peer.number] = peer
        return peer

    def edge_said(self, peer: EdgePeer, message: EdgeMessage) -> None:
        """An edge's message."""
        if peer.number not in self._edges:
            return
        if isinstance(message, Ack):
            peer.subscription.ack(message, self._loop.now_s)
            self._update(peer)
            return
        if isinstance(message, EdgeHello):
            peer.hello = message
            self._change()
        self._handle(EdgeSaid(peer.number, message))

    def edge_gone(self, peer: EdgePeer) -> None:
        """An edge's stream ended; the others share its room."""
        if self._edges.pop(peer.number, None) is not None:
            self._handle(EdgeGone(peer.number))
            self._change()

    def set_intent(self, replica: str, intent: Intent) -> None:
        """An operator's wish."""
        wish = Wish(intent, "", "operator", self._loop.now_s)
        self._store[INTENTS + replica] = pack(wish)
        if self.is_up:
            self._handle(IntentSet(replica, wish))

    @property
    def version(self) -> int:
        """Of its newest push."""
        return self._version

    def subscriptions(self) -> dict[int, Subscription]:
        """Of the edges, by stream."""
        return {number: peer.subscription for number, peer in self._edges.items()}

    def seen(self, replica: str) -> Steering:
        """What it means to do with a replica, as the checks see it."""
        known = self.registry.replicas.get(replica)
        if known is None or known.route is None:
            return Steering()
        breaker = known.standing.breaker
        ramps = breaker.state is BreakerState.RAMPING
        return Steering(
            limit_slots=slots(known, self._loop.now_s)
            if known.route.serving is Serving.OPEN
            else None,
            breaker=breaker.state.name,
            cap_slots=breaker.cap_slots if ramps else None,
            ejections=breaker.ejections,
        )

    # Inside

    def _boot(self) -> None:
        self.registry = Registry(
            placement=self._placement,
            dice=self._dice,
            now_s=self._loop.now_s,
            stale_s=STALE_S,
            wall_offset_s=EPOCH_S,
        )
        self._agents: dict[int, AgentPeer] = {}
        self._edges: dict[int, EdgePeer] = {}
        self._version = 0
        self._routing = Snapshot()
        self._routing_version = -1
        self._ledger = Ledger()
        self._waits = 0
        self._credits: Mapping[str, Credits] = {}
        self._changing = False

    def _handle(self, event: Event) -> None:
        for effect in self.registry.handle(event, self._loop.now_s):
            self._carry_out(effect)
        if self.registry.routing_version != self._routing_version:
            self._change()
        if self.registry.edges.waits != self._waits:
            self._waits = self.registry.edges.waits
            self._change()

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Transition | Noted):
            self.journal.take(effect, round(1000 * self._loop.now_s))
        match effect:
            case Save(key, value):
                if value is None:
                    self._store.pop(key, None)
                else:
                    self._store[key] = value
            case Direct(number, directive):
                agent = self._agents[number]
                agent.stream.down(agent.take, directive)
            case EndStream(number, _):
                (self._agents.get(number) or self._edges[number]).stream.end()
            case Transition():
                self._trace.note(self._loop.now_s, _words(effect))
            case Refusal(peer, kind, reason):
                self._trace.note(self._loop.now_s, f"refused {peer} {kind}: {reason}")
            case Noted(what, fields):
                self._trace.note(self._loop.now_s, f"{what} {_told(fields)}".rstrip())

    def _tick(self, life: int) -> None:
        if life != self._life:
            return
        self._handle(Tick())
        self._publish()
        for peer in list(self._edges.values()):
            if peer.subscription.stuck(self._loop.now_s):
                peer.stream.end()
        self._loop.after(self.period_s, self._tick, life)

    def _change(self) -> None:
        if not self._changing:
            self._changing = True
            self._loop.after(COALESCE_S, self._publish_change, self._life)

    def _publish_change(self, life: int) -> None:
        if life == self._life:
            self._publish()

    def _publish(self) -> None:
        self._changing = False
        registry = self.registry
        if registry.routing_version != self._routing_version:
            self._routing_version = registry.routing_version
            replicas, pools = registry.replicas.values(), self._placement.pools
            candidate = snapshot.build(replicas, pools, (), self._policy)
            if not snapshot.faults(candidate) and candidate != self._routing:
                self._routing = candidate
        edges, now_s = registry.edges.by_name, self._loop.now_s
        self._credits = self._ledger.split(registry.replicas.values(), edges, now_s)
        for peer in self._edges.values():
            self._update(peer)

    def _update(self, peer: EdgePeer) -> None:
        hello, now_s = peer.hello, self._loop.now_s
        if hello is None or self._routing_version < 0:
            return
        if hello.term and not self.registry.settled(now_s):
            return
        credit = self._credits.get(hello.edge)
        for update in peer.subscription.next(
            self.term, self._next_version, self._routing, credit, now_s
        ):
            peer.stream.down(peer.take, update)

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _records(self, prefix: str, kind: type[T]) -> dict[str, T]:
        found: dict[str, T] = {}
        for key, value in self._store.items():
            record = unpack(value, kind) if key.startswith(prefix) else None
            if record is not None:
                found[key.removeprefix(prefix)] = record
        return found


def _told(fields: Mapping[str, object]) -> str:
    told = ("node", "edge", "replica", "from", "to", "cause", "wait_s", "alarm")
    return " ".join(str(fields[key]) for key in told if fields.get(key))


def _words(transition: Transition) -> str:
    states, servings = transition.state, transition.serving
    return (
        f"{transition.replica} {states[0].name}->{states[1].name} "
        f"{servings[0].name}->{servings[1].name}"
    )

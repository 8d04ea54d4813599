"""The shell around the registry: its one writer, its clock, its pushes.

Rules: everything that happens goes through `_handle`, in the order it came; a change is published
COALESCE_S after it, together with what came in between, and credits after that and at every tick,
so that an edge hears from us twice a second; the store is written behind all that. (term, version)
only grow: an edge that has seen a higher one (the store was lost) makes us go on above it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from controlplane.core import snapshot, view
from controlplane.core.credits import Ledger
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
    Save,
    Tick,
    Transition,
)
from controlplane.core.placement import Placement
from controlplane.core.records import INTENTS, TERM_KEY, Wish, pack, pack_term
from controlplane.core.registry import Registry
from controlplane.core.subscription import Differences
from controlplane.saver import Saver
from controlplane.store.protocol import Put, Store
from controlplane.streams import AgentStream, EdgeStream, Stream
from trimtab.codec import Parts
from trimtab.model import (
    Ack,
    AgentMessage,
    ApiKey,
    Credits,
    EdgeHello,
    EdgeMessage,
    EdgePolicy,
    EdgeUpdate,
    Intent,
    Snapshot,
)
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner
from trimtab.views import Fleet

TICK_S = 0.5
COALESCE_S = 0.05  # half of the 100 ms that a decision may take to an edge
SLICE_S = 0.005  # of work on credits, between two looks at what else there is to do
TICK_REST = 7.0  # a tick comes later when a split took long: credits take an eighth of a core,
EARLY_REST = 10.0  # and those between ticks, when requests begin to wait, a tenth
STREAM_LIMIT = 6_000
HELLO_LIMIT_S = 10.0
TERM_LIMIT = 2**62  # an edge that claims more is wrong, not ahead
log = logging.getLogger("controlplane")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says about the fleet."""

    fleet: str
    name: str
    software_version: str
    placement: Placement
    keys: tuple[ApiKey, ...]
    policy: EdgePolicy
    stale_s: float


class ControlLoop:
    """Owns the registry; the servicers call it, `run` drives it."""

    def __init__(self, settings: Settings, store: Store, term: int) -> None:
        self._settings = settings
        self._store = store
        self._saver = Saver(store)
        self._term = term
        self._version = 0
        self._numbers = itertools.count(1)
        self._agents: dict[int, AgentStream] = {}
        self._edges: dict[int, EdgeStream] = {}
        now_s = clock.now_s()
        self._registry = Registry(
            settings.placement,
            random.SystemRandom(),
            now_s,
            settings.stale_s,
            wall_offset_s=clock.wall_s() - now_s,
        )
        self._routing: Snapshot | None = None
        self._routing_version = -1
        self._faults: list[str] = []
        self._ledger = Ledger()
        self._waits = 0
        self._differences = Differences()
        self._credits: Mapping[str, Credits] = {}
        self.parts = Parts()
        """Bytes that pushes share; as old as the credits and the routing."""
        self._changed = asyncio.Event()
        self._split_due = asyncio.Event()

    def load(self, loaded: Loaded) -> None:
        """Begin with what the store knew."""
        self._handle(loaded)

    async def run(self) -> None:
        """Tick, publish and save, for ever."""
        async with TaskRunner() as runner:
            runner.forever("saver", self._saver.run())
            runner.forever("publisher", self._publish_forever())
            runner.forever("ticks", self._tick_forever())
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """Say goodbye to all peers and write what is left; raises StoreError."""
        for stream in (*self._agents.values(), *self._edges.values()):
            stream.end("the control plane is stopping", grpc.StatusCode.UNAVAILABLE)
        await self._saver.flush()

    # Agents

    def open_agent(self) -> AgentStream:
        """An agent connected."""
        stream = AgentStream(next(self._numbers), clock.now_s())
        self._agents[stream.number] = stream
        self._limit(stream)
        return stream

    def agent_said(self, stream: AgentStream, message: AgentMessage) -> None:
        """An agent's message."""
        stream.introduced = True
        self._handle(AgentSaid(stream.number, message))

    def agent_gone(self, stream: AgentStream) -> None:
        """An agent's stream ended."""
        del self._agents[stream.number]
        self._handle(AgentGone(stream.number))

    # Edges

    def open_edge(self) -> EdgeStream:
        """An edge connected."""
        stream = EdgeStream(next(self._numbers), clock.now_s(), self._differences)
        self._edges[stream.number] = stream
        self._limit(stream)
        return stream

    def edge_said(self, stream: EdgeStream, message: EdgeMessage) -> None:
        """An edge's message."""
        stream.introduced = True
        if isinstance(message, Ack):
            stream.subscription.ack(message, clock.now_s())
            stream.wake.set()
            return
        if isinstance(message, EdgeHello):
            stream.hello = message
            self._stay_ahead(message)
            self._changed.set()
        self._handle(EdgeSaid(stream.number, message))

    def edge_gone(self, stream: EdgeStream) -> None:
        """An edge's stream ended; the others share its room."""
        del self._edges[stream.number]
        self._handle(EdgeGone(stream.number))
        self._changed.set()

    def updates(self, stream: EdgeStream) -> list[EdgeUpdate]:
        """What an edge is to be sent now."""
        hello, now_s = stream.hello, clock.now_s()
        if hello is None or self._routing is None:
            return []
        if hello.term and not self._registry.settled(now_s):
            return []  # it serves by what it has, and we have not heard everyone yet
        credit = self._credits.get(hello.edge)
        subscription = stream.subscription
        return subscription.next(self._term, self._next_version, self._routing, credit, now_s)

    # Operators

    def fleet(self) -> Fleet:
        """The fleet as it is now."""
        settings = self._settings
        leader = view.Leader(
            settings.fleet, settings.name, settings.software_version, self._term, self._version
        )
        subscriptions = {number: stream.subscription for number, stream in self._edges.items()}
        return view.fleet(leader, self._registry, subscriptions, clock.now_s())

    def replica_names(self) -> list[str]:
        """Every replica that has an intent to set."""
        return sorted(self._registry.replicas)

    async def set_intent(
        self, replica: str, intent: Intent, reason: str, actor: str
    ) -> tuple[int, Intent]:
        """Store a wish, then follow it; its revision and the intent before. Raises StoreError."""
        previous = self._registry.replicas[replica].wish.intent
        wish = Wish(intent, reason, actor, clock.wall_s())
        result = await self._store.txn([], [Put(INTENTS + replica, pack(wish))])
        self._handle(IntentSet(replica, wish))
        return result.revision, previous

    # Inside

    def _handle(self, event: Event) -> None:
        for effect in self._registry.handle(event, clock.now_s()):
            self._carry_out(effect)
        if self._registry.routing_version != self._routing_version:
            self._changed.set()
        if self._registry.edges.waits != self._waits:  # room elsewhere may serve them
            self._waits = self._registry.edges.waits
            self._changed.set()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Save(key, value):
                self._saver.save(key, value)
            case Direct(number, directive):
                agent = self._agents.get(number)
                if agent is not None and not agent.tell(directive):
                    agent.end("the agent does not read its directives")
            case EndStream(number, reason):
                stream: Stream | None = self._agents.get(number) or self._edges.get(number)
                if stream is not None:
                    log.warning("stream refused", extra={"fields": {"reason": reason}})
                    stream.end(reason)
            case Transition():
                log.info("replica changed", extra={"fields": _transition_fields(effect)})
            case Noted(what, fields):
                log.info(what, extra={"fields": dict(fields)})

    async def _publish_forever(self) -> None:
        """Routing as soon as it has changed; it never waits for credits."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(COALESCE_S)
            self._changed.clear()
            self._publish_routing()
            self._split_due.set()

    async def _tick_forever(self) -> None:
        """Credits at every tick and after changes, while that leaves time for everything else."""
        tick_at_s = early_at_s = clock.now_s()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, tick_at_s - clock.now_s())):
                    await self._split_due.wait()
                    await asyncio.sleep(early_at_s - clock.now_s())
            self._split_due.clear()
            if clock.now_s() >= tick_at_s:
                tick_at_s = max(tick_at_s + TICK_S, clock.now_s())
                self._handle(Tick())
                self._end_the_stuck()
                self._publish_routing()
            worked_s, ended_s = await self._split(), clock.now_s()
            early_at_s = ended_s + EARLY_REST * worked_s
            tick_at_s = max(tick_at_s, ended_s + TICK_REST * worked_s)

    def _publish_routing(self) -> None:
        """Make the newest routing and let the streams take it."""
        registry, settings = self._registry, self._settings
        if registry.routing_version == self._routing_version:
            return
        self._routing_version = registry.routing_version
        replicas, pools = registry.replicas.values(), settings.placement.pools
        self._take(snapshot.build(replicas, pools, settings.keys, settings.policy))
        for stream in self._edges.values():
            stream.wake.set()

    async def _split(self) -> float:
        """Make the newest credits, a slice at a time; how long that took without the rest."""
        began_s = slice_s = clock.now_s()
        worked_s = 0.0
        registry = self._registry
        steps = self._ledger.splitting(registry.replicas.values(), registry.edges.by_name, began_s)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                self._credits = end.value
                break
            now_s = clock.now_s()
            if now_s - slice_s >= SLICE_S:
                worked_s += now_s - slice_s
                await asyncio.sleep(0)
                slice_s = clock.now_s()
        self.parts = Parts()
        for stream in self._edges.values():
            stream.wake.set()
        return worked_s + clock.now_s() - slice_s

    def _take(self, candidate: Snapshot) -> None:
        faults = snapshot.faults(candidate)
        if faults and faults != self._faults:
            fields = {"faults": faults[:10]}
            log.error("snapshot not published; edges keep the last", extra={"fields": fields})
        self._faults = faults
        if not faults and candidate != self._routing:
            self._routing = candidate

    def _stay_ahead(self, hello: EdgeHello) -> None:
        """Never be older than what an edge has applied."""
        if self._term < hello.term < TERM_LIMIT:
            fields = {"edge": hello.edge, "term": self._term, "seen": hello.term}
            log.warning("an edge knows a later term: was the store lost?", extra={"fields": fields})
            self._term = hello.term + 1
            self._saver.save(TERM_KEY, pack_term(self._term))
        elif hello.term == self._term and hello.version < TERM_LIMIT:
            self._version = max(self._version, hello.version)

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _limit(self, stream: Stream) -> None:
        if len(self._agents) + len(self._edges) > STREAM_LIMIT:
            stream.end("too many streams", grpc.StatusCode.RESOURCE_EXHAUSTED)

    def _end_the_stuck(self) -> None:
        now_s = clock.now_s()
        for stream in (*self._agents.values(), *self._edges.values()):
            if not stream.introduced and now_s - stream.opened_at_s > HELLO_LIMIT_S:
                stream.end(f"no hello for {HELLO_LIMIT_S:.0f} s")
        for edge in self._edges.values():
            if edge.subscription.stuck(now_s):
                edge.end("an update was not acked in time", grpc.StatusCode.DEADLINE_EXCEEDED)


def _transition_fields(transition: Transition) -> dict[str, object]:
    states, servings = transition.state, transition.serving
    return {
        "replica": transition.replica,
        "state": states[1].name,
        "state_before": states[0].name,
        "serving": servings[1].name,
        "serving_before": servings[0].name,
        "reason": transition.reason,
        "evidence": dict(transition.evidence),
    }

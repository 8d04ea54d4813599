"""The shell around the registry: its one writer, its clock, its pushes.

Rules: everything that happens goes through `_handle`, in the order it came, but what time alone
does, and what edges may have, is worked out a slice at a time; a change is published at once, but
COALESCE_S after the one before, together with what came in between, and credits after that and at
every tick, so that an edge hears from us twice a second; the store is written behind all that.
(term, version) only grow: an edge that has seen a higher one (the store was lost) makes us go on
above it. One loop is one term: it pushes, directs and stores nothing once its tenure does not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import grpc

from controlplane import audit, contents, migrations, state
from controlplane.contents import Changes, Records, Restored
from controlplane.core import snapshot, view
from controlplane.core.audit import Deed, carry_over
from controlplane.core.bounds import TERM_LIMIT
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
    Loaded,
    Noted,
    Refusal,
    Save,
    Transition,
)
from controlplane.core.journal import Journal, told
from controlplane.core.records import TERM_KEY, pack_term, unpack_term
from controlplane.core.refusals import Kind, Refusals
from controlplane.core.registry import Registry
from controlplane.core.subscription import Differences
from controlplane.leader import Tenure
from controlplane.live import LiveConfiguration
from controlplane.probes import Probes
from controlplane.questions import Questions, Told
from controlplane.remedies import Remedies
from controlplane.saver import Saver
from controlplane.settings import Settings
from controlplane.slices import sliced
from controlplane.store.protocol import Compare, Store
from controlplane.streams import AgentStream, EdgeStream, Stream
from trimtab.codec import Parts
from trimtab.directives import Restarted
from trimtab.facts import NodeFacts
from trimtab.model import (
    Ack,
    AgentMessage,
    Credits,
    EdgeHello,
    EdgeMessage,
    EdgeUpdate,
    ProbeResult,
    Serving,
    Snapshot,
)
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner
from trimtab.views import Fleet, StateHeader

TICK_S = 0.5
COALESCE_S = 0.02  # between two publications: a fifth of what a decision may take to an edge
TICK_REST = 7.0  # a tick comes later when a split took long: credits take an eighth of a core,
EARLY_REST = 10.0  # and those between ticks, when requests begin to wait, a tenth
STREAM_LIMIT = 6_000
HELLO_LIMIT_S = 10.0
log = logging.getLogger("controlplane")


class ControlLoop:
    """Owns the registry; the servicers call it, `run` drives it."""

    def __init__(self, settings: Settings, store: Store, term: int, tenure: Tenure) -> None:
        self.settings = settings
        self._store = store
        self._tenure = tenure
        self._saver = Saver(store, tenure)
        self.live = LiveConfiguration(settings.live, store, self._saver, self._handle)
        self._term = term
        self._version = 0
        self.refusals = Refusals()
        self.journal = Journal()
        self.probes = Probes()
        self.remedies = Remedies(settings.remediation)
        self.steering = asyncio.Lock()
        """Held by a change by hand: each is judged by what those before it did."""
        self._numbers = itertools.count(1)
        self._agents: dict[int, AgentStream] = {}
        self._edges: dict[int, EdgeStream] = {}
        self.questions = Questions()
        self._registry = _registry(settings)
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
        self.live.load(loaded.config)
        self.journal.load(loaded.journal.values())
        self._handle(loaded)

    async def run(self) -> None:
        """Tick, publish and save, for ever; raises DeposedError."""
        self._carry_out(Noted("leads", {"term": self._term, "leader": self.settings.name}))
        async with TaskRunner() as runner:
            runner.forever("saver", self._saver.run())
            runner.forever("journal", self._saver.follow(self.journal))
            runner.forever("publisher", self._publish_forever())
            runner.forever("ticks", self._tick_forever())
            runner.forever("remedies", self.remedies.run(self))
            await asyncio.Event().wait()

    def end(self, reason: str) -> None:
        """Say goodbye to all peers."""
        for stream in (*self._agents.values(), *self._edges.values()):
            stream.end(reason, grpc.StatusCode.UNAVAILABLE)

    async def flush(self) -> None:
        """Write what is left; raises StoreError, DeposedError."""
        self._saver.take(self.journal)
        await self._saver.flush()

    # Agents

    def open_agent(self, peer: str = "") -> AgentStream:
        """An agent connected, from this host."""
        stream = AgentStream(next(self._numbers), clock.now_s())
        stream.peer = peer
        self._agents[stream.number] = stream
        self._limit(stream)
        return stream

    def agent_said(self, stream: AgentStream, message: AgentMessage) -> None:
        """An agent's message."""
        if stream.reason:
            return  # refused already, and about to end
        if isinstance(message, NodeFacts):  # for operators: it decides nothing
            self._registry.agents.set_up(stream.number, message, clock.wall_s())
            return
        stream.introduced = True
        if isinstance(message, ProbeResult):
            self.probes.take(message)
        if isinstance(message, Restarted):
            node = self._registry.agents.speaker(stream.number)
            self.remedies.take(self, node.hello.node if node else "", message)
        self._handle(AgentSaid(stream.number, message))

    def agent_gone(self, stream: AgentStream) -> None:
        """An agent's stream ended."""
        del self._agents[stream.number]
        self._handle(AgentGone(stream.number))

    def agent_of(self, replica: str) -> AgentStream | None:
        """The stream of its agent, if there is one; KeyError when there is no such replica."""
        node = self._registry.agents.by_node.get(self._registry.replicas[replica].node)
        return self._agents.get(node.stream) if node and node.stream is not None else None

    # Edges

    def open_edge(self, peer: str = "") -> EdgeStream:
        """An edge connected, from this host."""
        stream = EdgeStream(next(self._numbers), clock.now_s(), self._differences)
        stream.peer = peer
        self._edges[stream.number] = stream
        self._limit(stream)
        return stream

    def edge_said(self, stream: EdgeStream, message: EdgeMessage) -> None:
        """An edge's message."""
        if stream.reason:
            return  # refused already, and about to end
        if isinstance(message, Ack):
            if message.nonce and not stream.subscription.ack(message, clock.now_s()):
                self.refused(stream.peer, Kind.NONCE, f"nothing waits for ack {message.nonce}")
            stream.wake.set()
            return
        stream.introduced = True
        self._handle(EdgeSaid(stream.number, message))
        if isinstance(message, EdgeHello) and not stream.reason:
            stream.hello = message
            self._stay_ahead(message)
            self._changed.set()

    def edge_gone(self, stream: EdgeStream) -> None:
        """An edge's stream ended; the others share its room."""
        del self._edges[stream.number]
        self._handle(EdgeGone(stream.number))
        self._changed.set()

    def updates(self, stream: EdgeStream) -> list[EdgeUpdate]:
        """What an edge is to be sent now."""
        hello, now_s = stream.hello, clock.now_s()
        if hello is None or self._routing is None or not self._tenure.holds:
            return []
        if hello.term and not self._registry.settled(now_s):
            return []  # it serves by what it has, and we have not heard everyone yet
        credit = self._credits.get(hello.edge)
        subscription = stream.subscription
        return subscription.next(self._term, self._next_version, self._routing, credit, now_s)

    def refused(self, peer: str, kind: Kind, reason: str) -> None:
        """Something a peer sent was not taken."""
        times = self.refusals.take(peer, kind, clock.now_s())
        if times:
            fields = {"peer": peer, "kind": kind.value, "reason": reason, "times": times}
            log.warning("refused", extra={"fields": fields})

    # What /metrics shows

    @property
    def term(self) -> int:
        """Whose pushes these are."""
        return self._term

    def streams(self) -> dict[str, int]:
        """How many are open, by kind of peer."""
        return {"agent": len(self._agents), "edge": len(self._edges)}

    def servings(self) -> Counter[Serving]:
        """How many replicas are open, closed and lost."""
        routes = (replica.route for replica in self._registry.replicas.values())
        return Counter(route.serving for route in routes if route is not None)

    def push_lag_s(self) -> float:
        """Age of the oldest push without an ack."""
        now_s = clock.now_s()
        lags = (stream.subscription.lag_s(now_s) for stream in self._edges.values())
        return max(lags, default=0.0)

    def store_failures(self) -> int:
        """Writes that failed."""
        return self._saver.failures

    # Operators

    def fleet(self) -> Fleet:
        """The fleet as it is now."""
        settings = self.settings
        leader = view.Leader(
            settings.fleet, settings.name, settings.software_version, self._term, self._version
        )
        subscriptions = {number: stream.subscription for number, stream in self._edges.items()}
        return view.fleet(leader, self._registry, subscriptions, clock.now_s())

    @property
    def registry(self) -> Registry:
        """To read, and only until something else runs: a restore replaces it."""
        return self._registry

    async def probe_store(self) -> tuple[float, float]:
        """How long a read and a write take, seconds. Raises StoreError."""
        return await self._saver.probe()

    async def ask_edges(self, kind: str, argument: str, edge: str = "") -> list[Told]:
        """See controlplane/questions; only that edge, if it is named."""
        edges = [s for s in self._edges.values() if not edge or (s.hello and s.hello.edge == edge)]
        return await self.questions.ask(edges, kind, argument)

    def note(self, what: str, fields: Mapping[str, object]) -> None:
        """Something that people may want to know has happened."""
        self._carry_out(Noted(what, fields))

    def replica_names(self) -> list[str]:
        """Every replica that has an intent to set."""
        return sorted(self._registry.replicas)

    @property
    def store(self) -> Store:
        """What there is to read; to be written by `change` only."""
        return self._store

    async def change(
        self, changes: Changes, before: Changes, deed: Deed, compares: Sequence[Compare] = ()
    ) -> int:
        """Store what an operator wants; its revision. See `Saver.write`."""
        return await self._saver.write(changes, before, deed, compares)

    def tell(self, event: Event) -> None:
        """Follow what was stored."""
        self._handle(event)

    async def saved(self) -> tuple[StateHeader, Records]:
        """What the store keeps, as of one revision. Raises StoreError and SchemaError."""
        await self._saver.flush()
        records, revision = await contents.read(self._store)
        header = StateHeader(
            self.settings.fleet,
            self.settings.software_version,
            migrations.schema_of(records).version,
            revision,
            round(clock.wall_s() * 1000),
            len(records),
        )
        return header, records

    async def restore(self, records: Records, deed: Deed, *, preview: bool) -> Restored:
        """Keep exactly these, and begin anew with them. Raises StoreError and SchemaError."""
        async with self._saver.lock:
            have, _ = await contents.read(self._store)
            want = carry_over(have, migrations.upgraded(records))
            term_before = unpack_term(want.pop(TERM_KEY, b""))
            have.pop(TERM_KEY, None)  # it never falls: edges take nothing of an older one
            changes = contents.compare(have, want)
            if not preview:
                term = max(self._term, term_before + 1)
                changes_with_term = {TERM_KEY: pack_term(term), **changes}
                await contents.write(self._store, self._tenure, changes_with_term)
                await audit.commit(self._store, deed, (), self._tenure.fence)
                loaded = await state.load(self._store)
                self._saver.forget()
                self._begin_anew(loaded, term)
        return contents.count(have, changes)

    # Inside

    def _begin_anew(self, loaded: Loaded, term: int) -> None:
        """As after a restart: peers come back and say again what they know."""
        for stream in (*self._agents.values(), *self._edges.values()):
            stream.end("the state was restored: connect again", grpc.StatusCode.UNAVAILABLE)
        self._term = term
        self._registry = _registry(self.settings)
        self._routing, self._routing_version = None, -1
        self._ledger, self._waits, self._credits = Ledger(), 0, {}
        self.load(loaded)
        self._changed.set()

    def _handle(self, event: Event) -> None:
        self._follow(self._registry.handle(event, clock.now_s()))

    def _follow(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
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
                holds = self._tenure.holds
                if agent is not None and holds and not agent.tell(directive):
                    self._end(agent, Kind.SILENT, "the agent does not read its directives")
            case EndStream(number, reason, kind):
                stream: Stream | None = self._agents.get(number) or self._edges.get(number)
                if stream is not None:
                    self._end(stream, kind, reason)
            case Refusal(peer, kind, reason):
                self.refused(peer, kind, reason)
            case Transition():
                self.journal.take(effect, round(clock.wall_s() * 1000))
                log.info("replica changed", extra={"fields": told(effect)})
            case Noted(what, fields):
                self.journal.take(effect, round(clock.wall_s() * 1000))
                log.info(what, extra={"fields": dict(fields)})

    async def _publish_forever(self) -> None:
        """Routing as soon as it has changed; it never waits for credits."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            published = self._publish_routing()
            self._split_due.set()
            await asyncio.sleep(COALESCE_S if published else 0)

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
                await self._tick()
            worked_s, ended_s = await self._split(), clock.now_s()
            early_at_s = ended_s + EARLY_REST * worked_s
            tick_at_s = max(tick_at_s, ended_s + TICK_REST * worked_s)

    def _publish_routing(self) -> bool:
        """Make the newest routing and let the streams take it; whether there was any."""
        registry, live = self._registry, self.live.now
        if registry.routing_version == self._routing_version:
            return False
        self._routing_version = registry.routing_version
        replicas = registry.replicas.values()
        self._take(snapshot.build(replicas, live.placement.pools, live.keys, live.policy))
        for stream in self._edges.values():
            stream.wake.set()
        return True

    async def _tick(self) -> None:
        """Let what time alone decides be decided."""
        registry = self._registry
        effects, _ = await sliced(registry.ticking(clock.now_s()))
        if registry is self._registry:  # else the state was restored meanwhile
            self._follow(effects)
        self._end_the_stuck()
        self._publish_routing()

    async def _split(self) -> float:
        """Make the newest credits; how long that took."""
        replicas, edges = self._registry.replicas.values(), self._registry.edges.by_name
        steps = self._ledger.splitting(replicas, edges, clock.now_s())
        self._credits, worked_s = await sliced(steps)
        self.parts = Parts()
        for stream in [*self._edges.values()]:  # one at a time: decisions overtake credits
            stream.wake.set()
            await asyncio.sleep(0)
        return worked_s

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
            self._end(stream, Kind.FULL, "too many streams", grpc.StatusCode.RESOURCE_EXHAUSTED)

    def _end(
        self,
        stream: Stream,
        kind: Kind | None,
        reason: str,
        code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION,
    ) -> None:
        if kind is not None and not stream.reason:
            self.refused(stream.peer, kind, reason)
        stream.end(reason, code)

    def _end_the_stuck(self) -> None:
        now_s = clock.now_s()
        for stream in (*self._agents.values(), *self._edges.values()):
            if not stream.introduced and now_s - stream.opened_at_s > HELLO_LIMIT_S:
                self._end(stream, Kind.SILENT, f"no hello for {HELLO_LIMIT_S:.0f} s")
        for edge in self._edges.values():
            if edge.subscription.stuck(now_s):
                text, code = "an update was not acked in time", grpc.StatusCode.DEADLINE_EXCEEDED
                self._end(edge, Kind.SILENT, text, code)


def _registry(settings: Settings) -> Registry:
    now_s = clock.now_s()
    return Registry(
        settings.placement,
        random.SystemRandom(),
        now_s,
        settings.stale_s,
        wall_offset_s=clock.wall_s() - now_s,
    )

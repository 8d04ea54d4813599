"""The leader's memory: events in, effects out.

Rules: one writer; everything soft lives here and is rebuilt from reports within two periods;
`routing_version` moves exactly when something that edges are told has changed.

After a restart: a replica loaded from the store keeps the decision stored with it until its agent
is heard, and edges that have a routing already are told nothing until every replica known has been
heard, or BLACKOUT_S have passed (`settled`). So a restart takes no capacity away.
A replica is forgotten when nobody has said anything of it for FORGET_S, or its own agent reports
and has not named it for ABANDONED_S; one that is configured is CLOSED then, and stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace

from controlplane.core.agents import Agents
from controlplane.core.bounds import (
    PER_NODE_LIMIT,
    REPLICA_LIMIT,
    bounded_facts,
    bounded_report,
    clip,
    facts_fault,
)
from controlplane.core.breakers import Breakers
from controlplane.core.edges import Edges
from controlplane.core.events import (
    AgentGone,
    AgentSaid,
    BreakerReset,
    Configured,
    EdgeGone,
    EdgeSaid,
    Effect,
    EndStream,
    Event,
    IntentSet,
    Loaded,
    Noted,
    OverrideSet,
    Save,
    Tick,
)
from controlplane.core.gpu_faults import fatal
from controlplane.core.overrides import Overrides
from controlplane.core.placement import Placement, mismatch
from controlplane.core.records import (
    INTENTS,
    REPLICAS,
    ReplicaRecord,
    Wish,
    pack,
    recall,
    remember,
)
from controlplane.core.refusals import Kind
from controlplane.core.replica import Node, Replica
from controlplane.core.serving import (
    believed,
    combine,
    explain,
    judge,
    silence,
    transition,
    useless,
)
from trimtab.model import (
    Bye,
    EdgeHello,
    EngineFacts,
    EngineSample,
    EngineState,
    Intent,
    NodeHello,
    ProbeResult,
    Report,
    Route,
    Serving,
)
from trimtab.policy.capacity import Capacity
from trimtab.policy.dice import Dice
from trimtab.policy.grants import finish

STALE_S = 2.0  # a report older than this is silence (four of the default periods)
BLACKOUT_S = 3.0
ABANDONED_S = 10.0  # an agent names all its engines within seconds of its start
FORGET_S = 24 * 3600.0
DRAIN_GRACE_S = 2.0  # four reports of an edge


class Registry:
    """Replicas, nodes and edges; `handle` is the only way in."""

    def __init__(
        self,
        placement: Placement,
        dice: Dice,
        now_s: float,
        stale_s: float = STALE_S,
        wall_offset_s: float = 0.0,
    ) -> None:
        """`wall_offset_s` turns `now_s` into seconds since 1970, for what is stored."""
        self.placement = placement
        self.replicas: dict[str, Replica] = {}
        self.agents = Agents()
        self.edges = Edges()
        self.breakers = Breakers(dice, stale_s)
        self.overrides = Overrides()
        self.routing_version = 0
        self.stale_s = stale_s
        self._wall_offset_s = wall_offset_s
        self._started_at_s = now_s
        self._settled = False
        self._owned: Counter[str] = Counter()  # replicas by node
        self._wishes: dict[str, Wish] = {}  # of replicas that are not known yet
        self._pools: frozenset[str] = frozenset()
        self._pools_of = -1
        for engine in placement.engines[:REPLICA_LIMIT]:
            self._configure(engine.name, engine.url, now_s)

    def handle(self, event: Event, now_s: float) -> Sequence[Effect]:  # noqa: PLR0911
        """Take one event in; what the shell must do about it, in order."""
        match event:
            case AgentSaid():
                return self._from_agent(event, now_s)
            case AgentGone(stream):
                return self.agents.gone(stream)
            case EdgeSaid() | EdgeGone():
                return self._from_edge(event, now_s)
            case IntentSet() | OverrideSet() | BreakerReset():
                return self._by_hand(event, now_s)
            case Loaded():
                return self._load(event, now_s)
            case Configured(placement, noted):
                return [*noted, *self._reconfigure(placement, now_s)]
            case Tick():
                return finish(self.ticking(now_s))

    def wall_s(self, now_s: float) -> float:
        """The leader's clock as seconds since 1970."""
        return now_s + self._wall_offset_s

    def settled(self, now_s: float) -> bool:
        """Whether edges that are served by what they have may be told something new."""
        if not self._settled:
            heard = [replica.sample is not None for replica in self.replicas.values()]
            blackout_over = now_s - self._started_at_s >= BLACKOUT_S
            self._settled = blackout_over or (bool(heard) and all(heard))
        return self._settled

    def pools(self) -> frozenset[str]:
        """The names of all pools, configured or with a replica."""
        if self._pools_of != self.routing_version:
            routes = (replica.route for replica in self.replicas.values())
            named = {route.pool for route in routes if route is not None and route.pool}
            self._pools = frozenset(named | {pool.name for pool in self.placement.pools})
            self._pools_of = self.routing_version
        return self._pools

    # Edges and agents

    def _from_edge(self, event: EdgeSaid | EdgeGone, now_s: float) -> Sequence[Effect]:
        if isinstance(event, EdgeGone):
            return self.edges.gone(event.stream, now_s)
        if isinstance(event.message, EdgeHello):
            return self.edges.hello(event.stream, event.message, now_s)
        stream, report = event.stream, event.message
        refused = self.edges.report(stream, report, self.replicas, self.pools(), now_s)
        edge = self.edges.speaker(stream)
        if edge is not None and not refused:
            self.breakers.used(edge, self.replicas, now_s)
        return refused

    def _from_agent(self, event: AgentSaid, now_s: float) -> Sequence[Effect]:
        if isinstance(event.message, NodeHello):
            return self.agents.hello(event.stream, event.message, now_s)
        node = self.agents.speaker(event.stream)
        if node is None:
            return [EndStream(event.stream, "the first message must be a NodeHello", Kind.ORDER)]
        node.heard_at_s = now_s
        match event.message:
            case EngineFacts() as facts:
                return self._facts(node, facts, now_s)
            case Report() as report:
                return self._report(node, bounded_report(report), now_s)
            case Bye(reason):
                node.bye = clip(reason)
            case ProbeResult() as result:
                return self._probed(node, result, now_s)
            case _:  # how the node is set up decides nothing
                pass
        return []

    def _probed(self, node: Node, result: ProbeResult, now_s: float) -> Sequence[Effect]:
        replica = self.replicas.get(result.replica)
        if replica is None or replica.node != node.hello.node:
            return []
        return [*self.breakers.probed(replica, node, result, now_s), *self._review(replica, now_s)]

    def _facts(self, node: Node, facts: EngineFacts, now_s: float) -> Sequence[Effect]:
        fault = facts_fault(facts)
        refused = (fault, Kind.FACTS) if fault else self._claim_fault(node, facts.replica)
        if refused:
            return self.agents.refuse(node, refused[1], f"facts refused: {refused[0]}")
        facts = bounded_facts(facts)
        effects = self._drop_namesake(facts)
        replica = self.replicas.get(facts.replica)
        if replica is None:
            replica = self._create(facts.replica, facts.url, now_s)
        facts = _with_models_known(facts, replica.facts)
        replica.configured = self.placement.spec(facts.replica, facts.url) is not None
        self._own(replica, node.hello.node)
        replica.url, replica.facts = facts.url, facts
        replica.facts_at_s = now_s
        return [*effects, *self._review(replica, now_s), *self._keep(replica, now_s)]

    def _claim_fault(self, node: Node, name: str) -> tuple[str, Kind] | None:
        """Why a node may not speak for a replica; None if it may."""
        replica, owner = self.replicas.get(name), node.hello.node
        if replica is None and len(self.replicas) >= REPLICA_LIMIT:
            return f"there are {REPLICA_LIMIT} replicas already", Kind.FULL
        if replica is not None and replica.node == owner:
            return None
        if replica is not None and replica.node and self.agents.connected(replica.node):
            text = f"replica {name} belongs to node {replica.node}; replica names are unique"
            return text, Kind.CLAIM
        if self._owned[owner] >= PER_NODE_LIMIT:
            return f"node {owner} has {PER_NODE_LIMIT} replicas already", Kind.FULL
        return None

    def _own(self, replica: Replica, node: str) -> None:
        """The replica is on this node from now on; an empty one: on none."""
        self._owned -= Counter([replica.node])
        self._owned += Counter([node] if node else [])
        replica.node = node

    def _drop_namesake(self, facts: EngineFacts) -> list[Effect]:
        """The configured engine with this URL, if its agent turned out to call it otherwise."""
        spec = self.placement.spec(facts.replica, facts.url)
        ghost = self.replicas.get(spec.name) if spec else None
        if ghost is None or ghost.facts is not None or ghost.name == facts.replica:
            return []
        return self._forget(ghost)

    def _report(self, node: Node, report: Report, now_s: float) -> Sequence[Effect]:
        if 0 < report.seq <= node.seq:
            text = f"report refused: seq {report.seq} after {node.seq}"
            return self.agents.refuse(node, Kind.ORDER, text)
        node.reported_at_s, node.seq = now_s, report.seq
        if node.reporting_since_s is None:
            node.reporting_since_s = now_s
        node.gpus, node.gpu_detail = report.gpus, report.gpu_detail
        effects: list[Effect] = []
        for sample in report.engines:
            replica = self.replicas.get(sample.replica)
            if replica is None or replica.facts is None:
                text = f"sample refused: send EngineFacts for {clip(sample.replica)} first"
                effects += self.agents.refuse(node, Kind.SAMPLE, text)
            elif replica.node != node.hello.node:
                text = f"sample refused: replica {replica.name} belongs to node {replica.node}"
                effects += self.agents.refuse(node, Kind.CLAIM, text)
            else:
                effects += self._sample(replica, node, sample, now_s)
        return effects

    def _sample(
        self, replica: Replica, node: Node, sample: EngineSample, now_s: float
    ) -> Sequence[Effect]:
        before, old_state, old_health = replica.sample, replica.state, replica.health
        sample = believed(sample, self.edges.tokens_at_s(replica.name), now_s)
        replica.count(before, sample, now_s)
        self.breakers.sampled(replica, before, sample, now_s)
        if replica.facts is not None:
            limit, inflight = replica.facts.max_num_seqs, self.edges.inflight(replica.name)
            replica.load.take_sample(before, sample, limit, inflight, now_s)
        replica.take(sample, self.edges.inflight(replica.name), now_s)
        if old_state is not sample.state or before is None:
            replica.cause = sample.reason
            replica.stalled_warming = (
                old_state is EngineState.WARMING and sample.state is EngineState.STALLED
            )
        replica.gpu_fault = fatal(node.gpus, sample.gpus, _uptime_ms(replica, sample, now_s))
        health = judge(sample, old_health, replica.stalled_warming)
        replica.health = Serving.LOST if replica.gpu_fault else health
        news = before is None or before.epoch != sample.epoch or replica.health is not old_health
        effects = self.breakers.judge(replica, node, now_s) if news else []
        effects += self._review(replica, now_s, old_state)
        return effects + self._keep(replica, now_s) if news else effects

    # Operators, the store, time

    def _by_hand(
        self, event: IntentSet | OverrideSet | BreakerReset, now_s: float
    ) -> Sequence[Effect]:
        if isinstance(event, OverrideSet):
            return self.overrides.take(event, self.replicas.values())
        replica, name = self.replicas.get(event.replica), event.replica
        if replica is None:
            return []
        if isinstance(event, BreakerReset):
            return self.breakers.reset(replica, event, now_s)
        replica.wish = wish = event.wish
        fields = {"replica": name, "intent": wish.intent.name, "reason": wish.reason}
        noted = Noted("intent set", {**fields, "actor": wish.actor})
        return [noted, *self._review(replica, now_s)]

    def _load(self, event: Loaded, now_s: float) -> Sequence[Effect]:
        self._wishes, self.overrides = dict(event.wishes), Overrides(event.overrides)
        for name, record in event.replicas.items():
            replica = self.replicas.get(name) or self._create(name, record.facts.url, now_s)
            if replica.url != record.facts.url:
                continue  # the configuration has moved it: what is stored is another engine's
            self._own(replica, record.node)
            replica.url, replica.facts = record.facts.url, record.facts
            replica.health, replica.loaded, replica.saved = record.health, True, pack(record)
            offset_s = self._wall_offset_s
            replica.standing.breaker = recall(record.breaker, record.health, now_s, offset_s)
            replica.standing.capacity = Capacity(record.capacity_work_per_s)
            replica.route = None
        effects: list[Effect] = []
        for replica in self.replicas.values():
            replica.wish = self._wishes.pop(replica.name, replica.wish)
            effects += self._review(replica, now_s)
        return effects

    def ticking(self, now_s: float) -> Generator[None, None, list[Effect]]:
        """What a Tick does, in steps of a pool or a replica, between which events may come."""
        effects = self.overrides.expire(self.replicas.values(), self.wall_s(now_s))
        self.overrides.mark(self.edges.by_name)
        for some in self.breakers.ticking(self.replicas.values(), self.agents.by_node, now_s):
            effects += some
            yield
        for replica in list(self.replicas.values()):
            if self.replicas.get(replica.name) is replica:  # a namesake may have taken its place
                effects += self._passed(replica, now_s)
                yield
        self.agents.forget(FORGET_S, now_s)
        return effects

    def _passed(self, replica: Replica, now_s: float) -> list[Effect]:
        """What time alone does to a replica."""
        abandoned = self._abandoned(replica, now_s)
        if not replica.configured and (abandoned or replica.unheard_s(now_s) >= FORGET_S):
            return self._forget(replica)
        if abandoned:
            replica.health, replica.sample, replica.sampled_at_s = Serving.CLOSED, None, None
            replica.cause = "its agent does not watch it any more"
            replica.standing.unsaved = True
        effects = [*self._drained(replica, now_s), *self._review(replica, now_s)]
        return effects + self._keep(replica, now_s) if replica.standing.unsaved else effects

    def _drained(self, replica: Replica, now_s: float) -> list[Effect]:
        """That a drained replica has become empty, once every edge must have heard of the drain."""
        was, wish = replica.drained, replica.wish
        waits_s = self.wall_s(now_s) - wish.at_s
        drains = wish.intent is Intent.DRAINING and waits_s >= DRAIN_GRACE_S and self.edges.by_name
        replica.drained = bool(drains) and not self.edges.inflight(replica.name)
        if was or not replica.drained:
            return []
        return [Noted("drained", {"replica": replica.name, "after_s": round(waits_s, 1)})]

    def _abandoned(self, replica: Replica, now_s: float) -> bool:
        """Whether its own agent reports, and has not named it for long: a word, not silence."""
        node = self.agents.by_node.get(replica.node)
        if node is None or node.stream is None or node.reporting_since_s is None:
            return False
        unnamed_s = min(replica.unheard_s(now_s), now_s - node.reporting_since_s)
        reports = node.reported_at_s is not None and now_s - node.reported_at_s <= self.stale_s
        return reports and unnamed_s >= ABANDONED_S

    # Replicas

    def _configure(self, name: str, url: str, now_s: float) -> None:
        replica = self._create(name, url, now_s)
        replica.configured = True
        self._review(replica, now_s)

    def _reconfigure(self, placement: Placement, now_s: float) -> list[Effect]:
        """Others, or other keys and limits: all that edges are told is worked out anew."""
        effects: list[Effect] = []
        self.placement = placement
        for replica in list(self.replicas.values()):
            replica.configured = placement.spec(replica.name, replica.url) is not None
            replica.route_of = ()
            if not replica.configured and replica.facts is None:
                effects += self._forget(replica)  # nobody ever spoke of it but the configuration
        urls = {replica.url for replica in self.replicas.values()}
        for engine in placement.engines[:REPLICA_LIMIT]:
            if engine.url not in urls and engine.name not in self.replicas:
                self._configure(engine.name, engine.url, now_s)
        effects += [one for it in self.replicas.values() for one in self._review(it, now_s)]
        self.routing_version += 1
        return effects

    def _create(self, name: str, url: str, now_s: float) -> Replica:
        replica = Replica(name, url, known_since_s=now_s, wish=self._wishes.pop(name, Wish()))
        self.replicas[name] = replica
        return replica

    def _forget(self, replica: Replica) -> list[Effect]:
        del self.replicas[replica.name]
        self.edges.forget(replica.name)
        self.breakers.moves.forget(replica.name)
        self._own(replica, "")
        self.routing_version += 1
        return [
            Save(REPLICAS + replica.name, None),
            Save(INTENTS + replica.name, None),
            Noted("replica forgotten", {"replica": replica.name}),
        ]

    def _review(
        self, replica: Replica, now_s: float, old_state: EngineState | None = None
    ) -> list[Effect]:
        """Decide anew; a Transition when the decision or the state (given as it was) changed."""
        old = replica.route
        new = replica.route = self._route(replica, now_s)
        self.overrides.apply(replica)
        self.breakers.moves.reviewed(replica, old, now_s)
        same = new is old or new == old
        if same and (old_state is None or old_state is replica.state):
            return []
        self.routing_version += not same
        return transition(replica, old, old_state or replica.state)

    def _keep(self, replica: Replica, now_s: float) -> list[Effect]:
        """Store what must outlive us, if it is not there already."""
        if replica.facts is None:
            return []
        standing = replica.standing
        standing.unsaved = False
        record = ReplicaRecord(
            node=replica.node,
            facts=replace(replica.facts, uptime_ms=None),  # true only for a moment
            health=replica.health,
            breaker=remember(standing.breaker, self._wall_offset_s),
            capacity_work_per_s=_roughly(standing.capacity.work_per_s(now_s)),
        )
        value = pack(record)
        if value == replica.saved:
            return []
        replica.saved = value
        return [Save(REPLICAS + replica.name, value)]

    def _route(self, replica: Replica, now_s: float) -> Route:
        """As it follows from what it is made of; nearly always that is what it was."""
        facts, node = replica.facts, self.agents.by_node.get(replica.node)
        breaker, silent = replica.standing.breaker, silence(replica, node, now_s, self.stale_s)
        made_of = (
            *(replica.node, replica.url, replica.loaded, facts, replica.wish, replica.health),
            *(replica.sample is None, replica.state, replica.cause, replica.gpu_fault),
            *(breaker.state, breaker.cause, silent),
        )
        if replica.route is not None and replica.route_of == made_of:
            return replica.route
        replica.route_of = made_of
        models = facts.served_models if facts else ()
        pool, served_as = self.placement.place(replica.name, replica.url, models)
        wrong = mismatch(served_as, facts)
        return Route(
            replica=replica.name,
            pool=pool,
            node=replica.node,
            url=replica.url,
            served_as=served_as,
            serving=combine(
                useless(replica.health, breaker), replica.wish.intent, breaker.state, wrong
            ),
            reason="; ".join(filter(None, (wrong, explain(replica, silent)))),
            max_model_len_tokens=facts.max_model_len_tokens if facts else None,
            breaker=breaker.state,
            adapters=facts.adapters if facts else (),
        )


def _roughly(value: float) -> float:
    """Two digits of it, so that what is stored changes rarely."""
    return float(f"{value:.2g}")


def _uptime_ms(replica: Replica, sample: EngineSample, now_s: float) -> int | None:
    """How long the engine of this sample has been up; 0 while its facts are an older start's."""
    same_start = replica.facts is not None and replica.facts.epoch == sample.epoch
    return replica.uptime_ms(now_s) if same_start else 0


def _with_models_known(facts: EngineFacts, before: EngineFacts | None) -> EngineFacts:
    """An engine that can't tell its models just now still has those it had."""
    if facts.served_models or before is None or before.url != facts.url:
        return facts
    return replace(
        facts,
        served_models=before.served_models,
        max_model_len_tokens=before.max_model_len_tokens,
        adapters=before.adapters,
    )

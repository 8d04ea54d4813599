"""Whatever peers say, the registry answers, keeps its bounds, and can still be shown and pushed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.core import bounds, snapshot, view
from controlplane.core import registry as registry_module
from controlplane.core.credits import Ledger
from controlplane.core.events import (
    AgentGone,
    AgentSaid,
    EdgeGone,
    EdgeSaid,
    Effect,
    EndStream,
    Refusal,
    Tick,
)
from controlplane.core.placement import Placement
from controlplane.core.refusals import Kind
from controlplane.core.registry import Registry
from tests.fakes.dice import Loaded as Dice
from tests.fakes.peers import facts, sample
from tests.fakes.wire import U32, U64, messages
from trimtab.codec import WireError, decode_body, encode
from trimtab.model import (
    AgentMessage,
    EdgeHello,
    EdgePolicy,
    EdgeReport,
    HistogramDelta,
    NodeHello,
    Pool,
    PoolUse,
    ReplicaUse,
    Report,
    Serving,
    TenantUse,
)
from trimtab.v1 import agent_pb2, edge_pb2

AGENT, EDGE = 1, 2


class Fleet:
    """A registry, its time, and what the shell makes of it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.registry = Registry(Placement((Pool("empty"),)), Dice(), self.now_s)
        self.ledger = Ledger()

    def agent(self, message: AgentMessage, stream: int = AGENT) -> list[Effect]:
        return list(self.registry.handle(AgentSaid(stream, message), self.now_s))

    def edge(self, message: EdgeHello | EdgeReport, stream: int = EDGE) -> list[Effect]:
        return list(self.registry.handle(EdgeSaid(stream, message), self.now_s))

    def kinds(self, effects: list[Effect]) -> list[Kind | None]:
        return [effect.kind for effect in effects if isinstance(effect, Refusal | EndStream)]

    def push(self) -> None:
        """Everything that leaves must go on the wire."""
        registry = self.registry
        registry.handle(Tick(), self.now_s)
        state = snapshot.build(registry.replicas.values(), (), (), EdgePolicy())
        assert snapshot.faults(state) == []
        encode(state)
        edges = registry.edges.by_name
        for credits_ in self.ledger.split(registry.replicas.values(), edges, self.now_s).values():
            encode(credits_)
        leader = view.Leader("fleet", "cp", "0", 1, 1)
        encode(view.fleet(leader, registry, {}, self.now_s))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=False
)
@given(st.data())
def test_no_message_makes_the_registry_fail(data: st.DataObject) -> None:
    fleet = Fleet()
    fleet.agent(NodeHello("n1"))
    fleet.agent(facts("r1"))
    fleet.agent(Report(0, (sample("r1"),)))
    fleet.edge(EdgeHello("e1"))
    for _ in range(data.draw(st.integers(1, 6))):
        fleet.now_s += data.draw(st.sampled_from((0.0, 0.05, 0.5, 5.0)))
        of_agent = data.draw(st.booleans())
        kind: Any = agent_pb2.AgentMessage if of_agent else edge_pb2.EdgeMessage
        try:
            body: Any = decode_body(data.draw(messages(kind)))
        except WireError:
            continue
        if of_agent:
            fleet.agent(body)
        elif isinstance(body, EdgeHello | EdgeReport):
            fleet.edge(body)
        fleet.push()
    fleet.registry.handle(AgentGone(AGENT), fleet.now_s)
    fleet.registry.handle(EdgeGone(EDGE), fleet.now_s)
    fleet.push()


def test_one_node_can_claim_no_more_than_its_engines() -> None:
    fleet = Fleet()
    fleet.agent(NodeHello("n1"))
    refused = [kind for n in range(1000) for kind in fleet.kinds(fleet.agent(facts(f"r{n}")))]
    assert len(fleet.registry.replicas) == bounds.PER_NODE_LIMIT
    assert refused == [Kind.FULL] * (1000 - bounds.PER_NODE_LIMIT)
    assert fleet.kinds(fleet.agent(facts("r0", vllm_version="2"))) == []


def test_many_nodes_can_claim_no_more_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "REPLICA_LIMIT", 100)
    fleet = Fleet()
    for node in range(20):
        fleet.agent(NodeHello(f"n{node}"), node)
        for number in range(50):
            fleet.agent(facts(f"r{node}-{number}"), node)
    assert len(fleet.registry.replicas) == 100


def test_a_place_is_free_again_when_the_replica_moves_or_is_forgotten() -> None:
    fleet = Fleet()
    fleet.agent(NodeHello("n1"))
    for number in range(bounds.PER_NODE_LIMIT):
        fleet.agent(facts(f"r{number}"))
    assert fleet.kinds(fleet.agent(facts("new"))) == [Kind.FULL]
    fleet.registry.handle(AgentGone(AGENT), fleet.now_s)
    fleet.agent(NodeHello("n2"), 3)
    assert fleet.kinds(fleet.agent(facts("r0"), 3)) == []
    fleet.agent(NodeHello("n1"), 4)
    assert fleet.kinds(fleet.agent(facts("new"), 4)) == []


def test_who_speaks_for_anothers_replica_changes_nothing() -> None:
    fleet = Fleet()
    fleet.agent(NodeHello("n1"))
    fleet.agent(facts("r1"))
    fleet.agent(Report(1, (sample("r1"),)))
    before = fleet.registry.replicas["r1"].route
    fleet.agent(NodeHello("evil"), 9)
    stolen = fleet.agent(facts("r1", url="http://evil:1"), 9)
    lie = fleet.agent(Report(1, (sample("r1", epoch=666),)), 9)
    assert (fleet.kinds(stolen), fleet.kinds(lie)) == ([Kind.CLAIM], [Kind.CLAIM])
    assert fleet.registry.replicas["r1"].route == before
    assert before is not None
    assert before.serving is Serving.OPEN


@pytest.mark.parametrize("seqs", [(1, 1), (5, 4), (U64, 1)])
def test_a_report_counts_once(seqs: tuple[int, int]) -> None:
    fleet = Fleet()
    fleet.agent(NodeHello("n1"))
    fleet.edge(EdgeHello("e1"))
    first, second = seqs
    assert fleet.agent(Report(first)) == fleet.edge(EdgeReport(first)) == []
    assert fleet.kinds(fleet.agent(Report(second))) == [Kind.ORDER]
    assert fleet.kinds(fleet.edge(EdgeReport(second))) == [Kind.ORDER]


@pytest.mark.parametrize(
    ("hello", "kind"),
    [
        (EdgeHello("e1", term=U64), Kind.MESSAGE),
        (EdgeHello("e1", version=2**62), Kind.MESSAGE),
        (EdgeHello("e 1"), Kind.NAME),
        (EdgeHello("e1", instance="i" * 129), Kind.NAME),
    ],
)
def test_edges_that_cannot_be_are_refused(hello: EdgeHello, kind: Kind) -> None:
    fleet = Fleet()
    assert fleet.kinds(fleet.edge(hello)) == [kind]
    assert fleet.registry.edges.by_name == {}


def test_reports_before_a_hello_and_a_second_hello_end_the_stream() -> None:
    fleet = Fleet()
    assert fleet.kinds(fleet.agent(Report(1))) == [Kind.ORDER]
    assert fleet.kinds(fleet.edge(EdgeReport(1))) == [Kind.ORDER]
    fleet.agent(NodeHello("n1"))
    assert fleet.kinds(fleet.agent(NodeHello("n2"))) == [Kind.ORDER]


def test_an_edges_million_of_everything_is_held_as_little() -> None:
    fleet = Fleet()
    fleet.agent(NodeHello("n1"))
    fleet.agent(facts("r1"))
    fleet.edge(EdgeHello("e1", edge_version="v" * 10**6, listen_url="u" * 10**6))
    uses = tuple(ReplicaUse(f"x{n}", inflight=U32) for n in range(10_000))
    for seq in range(1, 200):
        tenants = tuple(TenantUse(f"t{seq}-{n}", charged_work=1.0) for n in range(64))
        pools = tuple(PoolUse(f"p{n}") for n in range(100))
        mine = ReplicaUse("r1", inflight=U32, dispatched=U64, tokens=U64)
        fleet.edge(EdgeReport(seq, (*uses, mine), (*pools, PoolUse("empty", tenants=tenants))))
    edge = fleet.registry.edges.by_name["e1"]
    (use,) = edge.news
    assert (use.replica, use.inflight) == ("r1", bounds.INFLIGHT_LIMIT)
    assert set(edge.pools) == {"empty"}
    assert len(edge.charged["empty"]) == bounds.CHARGED_LIMIT
    assert len(edge.hello.edge_version) == len(edge.hello.listen_url) == bounds.TEXT_LIMIT_CHARS
    fleet.push()


def test_what_is_kept_of_a_sample_is_small() -> None:
    many = HistogramDelta(tuple(map(float, range(10**5))), (U64,) * 10**5, 1e300)
    mad = sample("r1", ttft=many, itl=many, state_age_ms=U64, generation_tokens_total=U64)
    (kept,) = bounds.bounded_report(Report(1, (mad,))).engines
    assert kept.ttft is not None
    assert (len(kept.ttft.le_s), max(kept.ttft.count)) == (64, bounds.NEWS_LIMIT)
    assert kept.state_age_ms == bounds.AGE_LIMIT_MS
    assert kept.generation_tokens_total == bounds.TOTAL_LIMIT


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://",
        "http://[",
        "http://h:99999",
        "http://h:1/\x1b[2J",
        "http://h:1/ x",
        "http://user:password@h:1",
        "http://h:1?x=1",
        "http://h:1#x",
        "http://" + "h" * 10**6,
    ],
)
def test_urls_that_no_edge_could_use(url: str) -> None:
    assert len(bounds.url_fault(url)) < 400
    assert bounds.url_fault(url)


def test_texts_do_not_reach_a_terminal_as_commands() -> None:
    assert bounds.clip("a\x1b[2Jb\nc") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c"

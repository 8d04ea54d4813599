"""Nodes and the streams of their agents."""

from __future__ import annotations

import pytest

from controlplane.core import agents as agents_module
from controlplane.core.agents import FRESH_S, TOLD_LIMIT, Agents
from controlplane.core.events import Direct, EndStream, Noted, Refusal
from controlplane.core.refusals import Kind
from trimtab.model import NodeHello, Refused


def test_a_hello_makes_a_node_and_a_stream_names_its_speaker() -> None:
    agents = Agents()
    assert agents.speaker(1) is None
    (noted,) = agents.hello(1, NodeHello("n1", "v" * 999), 100.0)
    assert isinstance(noted, Noted)
    node = agents.speaker(1)
    assert node is agents.by_node["n1"]
    assert node.hello.agent_version.endswith("…")
    assert agents.connected("n1")
    assert not agents.connected("n2")


def test_two_machines_with_one_name_are_told() -> None:
    agents = Agents()
    agents.hello(1, NodeHello("n1", instance="a"), 100.0)
    text = "another agent runs for node n1; give each node its own name"
    again = agents.hello(2, NodeHello("n1", instance="b"), 100.0 + FRESH_S)
    assert again == [EndStream(2, text)]
    assert agents.hello(1, NodeHello("n1"), 100.0) == [EndStream(1, "a stream has one NodeHello")]
    assert agents.gone(2) == []


@pytest.mark.parametrize(("instance", "now_s"), [("a", 100.1), ("b", 100.1 + FRESH_S)])
def test_the_same_agent_or_one_after_a_dead_one_takes_over(instance: str, now_s: float) -> None:
    agents = Agents()
    agents.hello(1, NodeHello("n1", instance="a"), 100.0)
    effects = agents.hello(2, NodeHello("n1", instance=instance), now_s)
    assert effects[0] == EndStream(1, "the same agent has a newer stream")
    assert agents.gone(1) == []
    assert agents.connected("n1")
    assert len(agents.gone(2)) == 1
    assert not agents.connected("n1")


@pytest.mark.parametrize("name", ["", "a b", "x" * 200])
def test_a_node_has_a_name(name: str) -> None:
    (effect,) = Agents().hello(1, NodeHello(name), 100.0)
    assert isinstance(effect, EndStream)


def test_nodes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_module, "NODE_LIMIT", 1)
    agents = Agents()
    agents.hello(1, NodeHello("n1"), 100.0)
    assert agents.hello(2, NodeHello("n2"), 100.0) == [EndStream(2, "there are 1 nodes already")]


def test_a_refusal_is_said_once_a_stream_and_never_without_end() -> None:
    agents = Agents()
    agents.hello(1, NodeHello("n1"), 100.0)
    node = agents.by_node["n1"]
    assert agents.refuse(node, Kind.FACTS, "no")[0] == Direct(1, Refused("no"))
    assert agents.refuse(node, Kind.FACTS, "no") == [Refusal("n1", Kind.FACTS, "no")]
    told = [agents.refuse(node, Kind.FACTS, f"no {number}") for number in range(2 * TOLD_LIMIT)]
    assert sum(len(effects) == 2 for effects in told) == TOLD_LIMIT - 1
    agents.gone(1)
    agents.hello(2, NodeHello("n1"), 101.0)
    assert agents.refuse(node, Kind.FACTS, "no")[0] == Direct(2, Refused("no"))
    agents.gone(2)
    assert len(agents.refuse(node, Kind.FACTS, "something else")) == 1


def test_only_nodes_that_are_away_are_forgotten() -> None:
    agents = Agents()
    agents.hello(1, NodeHello("here"), 100.0)
    agents.hello(2, NodeHello("away"), 100.0)
    agents.gone(2)
    agents.forget(60.0, 159.0)
    assert set(agents.by_node) == {"here", "away"}
    agents.forget(60.0, 160.0)
    assert set(agents.by_node) == {"here"}

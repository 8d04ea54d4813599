"""The nodes and the streams of their agents.

Rules: one stream a node; a name that another, living agent has is refused, so that two machines
with one name are told and don't take turns; a refusal is said once a stream.
"""

from __future__ import annotations

from dataclasses import replace

from controlplane.core.bounds import (
    NODE_LIMIT,
    bounded_node_facts,
    clip,
    instance_fault,
    name_fault,
)
from controlplane.core.events import Direct, EndStream, Noted, Refusal
from controlplane.core.refusals import Kind
from controlplane.core.replica import Node
from trimtab.facts import NodeFacts
from trimtab.model import NodeHello, Refused

FRESH_S = 2.0  # heard within this: it lives
TOLD_LIMIT = 64


class Agents:
    """The nodes by name."""

    def __init__(self) -> None:
        self.by_node: dict[str, Node] = {}
        self._names: dict[int, str] = {}

    def speaker(self, stream: int) -> Node | None:
        """The node whose agent speaks on a stream; None before its hello."""
        name = self._names.get(stream)
        return None if name is None else self.by_node[name]

    def connected(self, node: str) -> bool:
        """Whether the node's agent has a stream."""
        known = self.by_node.get(node)
        return known is not None and known.stream is not None

    def hello(self, stream: int, hello: NodeHello, now_s: float) -> list[EndStream | Noted]:
        """An agent introduces itself."""
        fault = self._fault(stream, hello, now_s)
        if fault:
            return [EndStream(stream, *fault)]
        effects: list[EndStream | Noted] = []
        hello = replace(hello, agent_version=clip(hello.agent_version))
        node = self.by_node.setdefault(hello.node, Node(hello, heard_at_s=now_s))
        if node.stream is not None:
            del self._names[node.stream]
            effects.append(EndStream(node.stream, "the same agent has a newer stream"))
        node.hello, node.heard_at_s, node.stream, node.bye = hello, now_s, stream, None
        node.reporting_since_s, node.seq = None, 0
        node.told.clear()
        self._names[stream] = hello.node
        fields = {"node": hello.node, "agent_version": hello.agent_version}
        return [*effects, Noted("agent connected", fields)]

    def set_up(self, stream: int, facts: NodeFacts, wall_s: float) -> None:
        """An agent tells how its node is set up."""
        node = self.speaker(stream)
        if node is not None:
            node.setup = bounded_node_facts(facts)
            node.ahead_s = round(facts.process.at_ms / 1000 - wall_s, 3)

    def gone(self, stream: int) -> list[Noted]:
        """An agent's stream ended."""
        name = self._names.pop(stream, None)
        if name is None:
            return []
        node = self.by_node[name]
        node.stream = None
        return [Noted("agent disconnected", {"node": name, "said_bye": node.bye is not None})]

    def refuse(self, node: Node, kind: Kind, text: str) -> list[Direct | Refusal]:
        """Something was not taken; the agent is told the same text once a stream."""
        refusal = Refusal(node.hello.node, kind, text)
        if node.stream is None or text in node.told or len(node.told) >= TOLD_LIMIT:
            return [refusal]
        node.told.add(text)
        return [Direct(node.stream, Refused(text)), refusal]

    def forget(self, unheard_s: float, now_s: float) -> None:
        """Drop the nodes that have been away for so long."""
        for name, node in list(self.by_node.items()):
            if node.stream is None and now_s - node.heard_at_s >= unheard_s:
                del self.by_node[name]

    def _fault(self, stream: int, hello: NodeHello, now_s: float) -> tuple[str, Kind] | None:
        if stream in self._names:
            return "a stream has one NodeHello", Kind.ORDER
        fault = name_fault(hello.node) or instance_fault(hello.instance)
        if fault:
            return fault, Kind.NAME
        old = self.by_node.get(hello.node)
        if old is None:
            full = len(self.by_node) >= NODE_LIMIT
            return (f"there are {NODE_LIMIT} nodes already", Kind.FULL) if full else None
        lives = old.stream is not None and now_s - old.heard_at_s <= FRESH_S
        if lives and old.hello.instance != hello.instance:
            text = f"another agent runs for node {hello.node}; give each node its own name"
            return text, Kind.NAME
        return None

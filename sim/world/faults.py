"""What goes wrong, when, and how it is mended.

Rules: a fault changes the ground truth and nothing else; nobody is told but by its effects; faults
on parts that a policy under test does not have (agents, control plane) do nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sim.world.agent import Agent
from sim.world.controlplane import ControlPlane
from sim.world.edge import Edge
from sim.world.loop import Loop
from sim.world.network import Network
from sim.world.replica import Replica
from sim.world.scenario import FaultSpec
from sim.world.trace import Trace
from trimtab.model import Intent

Change = Callable[[], None]


@dataclass(frozen=True)
class Parts:
    """Everything that can go wrong."""

    loop: Loop
    network: Network
    trace: Trace
    replicas: Mapping[str, Replica]
    agents: Mapping[str, Agent] = field(default_factory=dict)
    edges: Mapping[str, Edge] = field(default_factory=dict)
    controlplane: ControlPlane | None = None
    shift: Callable[[str], None] = lambda _edge: None


def plan(spec: FaultSpec, parts: Parts) -> None:
    """Let it happen, and be mended."""
    break_it, mend_it = _changes(spec, parts)

    def strike() -> None:
        parts.trace.note(parts.loop.now_s, f"fault: {_words(spec)}")
        break_it()
        if spec.for_s is not None:
            parts.loop.after(spec.for_s, mend)
        if spec.repeat_s is not None:
            parts.loop.after(spec.repeat_s, strike)

    def mend() -> None:
        parts.trace.note(parts.loop.now_s, f"mended: {_words(spec)}")
        mend_it()

    parts.loop.at(spec.at_s, strike)


def _words(spec: FaultSpec) -> str:
    return " ".join(w for w in (spec.kind, spec.replica, spec.edge, spec.one, spec.other) if w)


def _changes(spec: FaultSpec, parts: Parts) -> tuple[Change, Change]:
    """How to do it, and how to undo it."""
    if spec.kind in {"crash", "freeze", "hang", "slow", "fail", "cut", "reject", "queue_limit"}:
        return _replica_changes(spec, parts, parts.replicas[spec.replica])
    if spec.kind.startswith("agent"):
        return _agent_changes(spec, parts)
    if spec.kind in {"partition", "lag"}:
        return _network_changes(spec, parts.network, parts)
    return _service_changes(spec, parts)


def _replica_changes(spec: FaultSpec, parts: Parts, replica: Replica) -> tuple[Change, Change]:
    def crash() -> None:
        replica.crash()
        if spec.for_s is not None:
            parts.loop.after(max(0.0, spec.for_s - spec.cold_s), load)

    def load() -> None:
        replica.is_loading = not replica.is_up

    def fail(ratio: float) -> None:
        replica.fail_ratio, replica.fail_after_s = ratio, spec.after_s

    def cut(ratio: float) -> None:
        replica.cut_ratio, replica.cut_after_s = ratio, spec.after_s

    def reject(on: bool) -> None:
        replica.rejects = on

    before = replica.spec.max_num_queued_reqs
    table: dict[str, tuple[Change, Change]] = {
        "crash": (crash, lambda: replica.start(spec.cold_s)),
        "freeze": (lambda: replica.stop_core(api_too=False), replica.resume_core),
        "hang": (lambda: replica.stop_core(api_too=True), replica.resume_core),
        "slow": (lambda: replica.set_slow(spec.value), lambda: replica.set_slow(1.0)),
        "fail": (lambda: fail(spec.value), lambda: fail(0.0)),
        "cut": (lambda: cut(spec.value), lambda: cut(0.0)),
        "reject": (lambda: reject(True), lambda: reject(False)),
        "queue_limit": (
            lambda: replica.limit_queue(int(spec.value)),
            lambda: replica.limit_queue(before),
        ),
    }
    return table[spec.kind]


def _agent_changes(spec: FaultSpec, parts: Parts) -> tuple[Change, Change]:
    agent, controlplane = parts.agents.get(spec.replica), parts.controlplane
    if agent is None or controlplane is None:
        return _nothing, _nothing

    def lie(what: bool) -> None:
        agent.lie = "" if not what else "idle" if spec.kind == "agent_lie" else "stuck"

    if spec.kind in {"agent_lie", "agent_stuck"}:
        return lambda: lie(True), lambda: lie(False)
    silently = spec.kind == "agent_freeze"
    return lambda: agent.stop(silently=silently), lambda: agent.start(controlplane)


def _network_changes(spec: FaultSpec, network: Network, parts: Parts) -> tuple[Change, Change]:
    if spec.kind == "lag":

        def lag(seconds: float) -> None:
            network.lag_s[spec.one] = seconds

        return lambda: lag(spec.value), lambda: lag(0.0)
    pairs = [(a, b) for a in _members(spec.one, parts) for b in _members(spec.other, parts)]

    def cut() -> None:
        for pair in pairs:
            network.cut(*pair)

    def heal() -> None:
        for pair in pairs:
            network.heal(*pair)

    return cut, heal


def _members(name: str, parts: Parts) -> list[str]:
    groups = {"edges": list(parts.edges), "agents": [a.name for a in parts.agents.values()]}
    return groups.get(name, [name])


def _service_changes(spec: FaultSpec, parts: Parts) -> tuple[Change, Change]:
    controlplane = parts.controlplane
    if spec.kind == "shift":
        return lambda: parts.shift(spec.edge), lambda: parts.shift("")
    if controlplane is None:
        return _nothing, _nothing
    if spec.kind == "edge_kill":
        edge = parts.edges[spec.edge]
        return edge.stop, lambda: edge.start(controlplane)
    if spec.kind == "drain":
        return (
            lambda: controlplane.set_intent(spec.replica, Intent.DRAINING),
            lambda: controlplane.set_intent(spec.replica, Intent.ACTIVE),
        )
    return controlplane.kill, controlplane.start


def _nothing() -> None:
    """The policy under test has no such part."""

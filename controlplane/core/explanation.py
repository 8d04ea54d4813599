"""Why one replica gets the traffic it gets: every cause looked at, the worst first.

Rules: nothing is guessed: each look reads what the decision was made from, and says the numbers;
BLOCKS must go before the replica gets new requests, LIMITS means fewer than it could take. The
headline is the first thing that matters, so that one line is enough at 3 a.m.; advice is only what
helps against something found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controlplane.core import explain_steering
from controlplane.core.replica import Node, Replica
from controlplane.core.serving import silence
from trimtab.model import BreakerState, EngineState, Intent, Serving
from trimtab.policy.breaker import SERVING
from trimtab.steered import Override
from trimtab.views import (
    Concern,
    EdgeView,
    Explanation,
    Finding,
    Fleet,
    FleetEvent,
    PoolView,
    ReplicaView,
)

EVENTS_SHOWN = 20
KV_FULL_RATIO = 0.95
NO_MODEL = "no model is known of it yet, so no pool has it"
_ADVICE = {
    **explain_steering.ADVICE,
    "intent": "ctl uncordon {name}",
    "engine": "look at the engine's own log on {node}; it comes back by itself once it serves",
    "GPU": "drain what is left, then reset or replace the GPU on {node} (dmesg has the Xid)",
    "agent": "on {node}: is trimtab-agent running, and does it reach a control plane?",
    "model": "ctl get pools; start the engine with --served-model-name of a pool, or add the pool",
    "edges": "ctl get edges: an edge works with what it has until it takes the newest",
    "room": "nothing is wrong with it: the rest waits at the edges; more replicas take more",
    "memory": "long prompts fill its KV cache; requests wait there rather than at the edges",
}


@dataclass(frozen=True, slots=True)
class Case:
    """Everything there is to look at."""

    replica: Replica
    view: ReplicaView
    node: Node | None
    pool: PoolView | None
    edges: tuple[EdgeView, ...]
    now_s: float
    wall_s: float
    stale_s: float
    overrides: tuple[Override, ...] = ()


Look = Callable[[Case], tuple[Concern, str]]


def explain(case: Case, events: tuple[FleetEvent, ...] = ()) -> Explanation:
    """Look at everything; O(edges)."""
    looked = [(what, *look(case)) for what, look in LOOKS.items()]
    found = [Finding(concern, what, text) for what, concern, text in looked]
    findings = tuple(sorted(found, key=lambda finding: finding.concern))
    return Explanation(
        replica=case.replica.name,
        headline=_headline(case, findings[0]),
        in_rotation=findings[0].concern is not Concern.BLOCKS,
        traffic=_traffic(case),
        findings=findings,
        effect=_effect(case),
        advice=tuple(_advice(case, findings)),
        events=events,
    )


def case(
    fleet: Fleet, replica: Replica, node: Node | None, now_s: float, wall_s: float, stale_s: float
) -> Case:
    """What there is to look at for one replica; `fleet` as it is now."""
    view = next(view for view in fleet.replicas if view.route.replica == replica.name)
    pool = next((pool for pool in fleet.pools if pool.pool == view.route.pool), None)
    ages = now_s, wall_s, stale_s
    return Case(replica, view, node, pool, fleet.edges, *ages, fleet.overrides)


# The looks


def _intent(case: Case) -> tuple[Concern, str]:
    wish = case.replica.wish
    if wish.intent in {Intent.ACTIVE, Intent.UNSPECIFIED}:
        return Concern.FINE, "nobody holds it back"
    by = f" by {wish.actor}" if wish.actor else ""
    since = f" {span(case.wall_s - wish.at_s)} ago" if wish.at_s else ""
    why = f": {wish.reason}" if wish.reason else ""
    left = f"; {case.view.inflight} still run on it" if case.view.inflight else ""
    return Concern.BLOCKS, f"{wish.intent.name.lower()}{by}{since}{why}{left}"


def _engine(case: Case) -> tuple[Concern, str]:
    replica, view = case.replica, case.view
    if replica.sample is None:
        known = f" ({replica.cause})" if replica.cause else ""
        text = f"no report of it yet{known}; it is {replica.health.name} as last decided"
        return _unless_open(replica), text
    why = f": {view.state_reason}" if view.state_reason else ""
    text = f"{view.state.name} for {span(view.state_age_ms / 1000)}{why}"
    if view.state is EngineState.STALLED:
        text += f", no progress for {span(replica.sample.no_progress_ms / 1000)}"
        text += f" with {view.running or 0} running"
    if view.state is EngineState.WARMING:
        return Concern.LIMITS, text
    return _unless_open(replica), text


def _unless_open(replica: Replica) -> Concern:
    return Concern.FINE if replica.health is Serving.OPEN else Concern.BLOCKS


def _gpu(case: Case) -> tuple[Concern, str]:
    if case.replica.gpu_fault:
        return Concern.BLOCKS, case.replica.gpu_fault
    if not case.view.gpus:
        why = case.node.gpu_detail if case.node else ""
        return Concern.FINE, f"no readings{f': {why}' if why else ''}"
    return Concern.FINE, f"{len(case.view.gpus)} in use, no fatal Xid since its engine started"


def _breaker(case: Case) -> tuple[Concern, str]:
    view, breaker = case.view, case.replica.standing.breaker
    state = breaker.state.name.lower()
    why = f": {breaker.cause.value}" if breaker.cause else ""
    since = f" for {span(view.breaker_age_ms / 1000)}" if breaker.cause else ""
    text = f"{state}{since}{why}"
    if view.ejected_for_ms is not None:
        wait = f"in {span(view.ejected_for_ms / 1000)}" if view.ejected_for_ms else "once it serves"
        text += f"; probed {wait}"
    if breaker.ejections:
        text += f"; ejections that count: {breaker.ejections}"
    if breaker.state not in SERVING:
        waits = breaker.state is BreakerState.JOINING and case.replica.health is not Serving.OPEN
        return (Concern.FINE if waits else Concern.BLOCKS), text
    if breaker.state is BreakerState.RAMPING:
        text += f"; it may hold {view.limit_slots} of {view.full_slots}, and more as it answers"
    if breaker.state is BreakerState.DEGRADED:
        text += f"; {view.failures_1m} of its attempts failed in the last minute"
    return (Concern.FINE if breaker.state is BreakerState.HEALTHY else Concern.LIMITS), text


def _agent(case: Case) -> tuple[Concern, str]:
    said = silence(case.replica, case.node, case.now_s, case.stale_s)
    if said:
        return Concern.LIMITS, said
    age_s = case.replica.age_s(case.now_s)
    if age_s is None:
        return Concern.LIMITS, "no agent has reported it to this leader"
    return Concern.FINE, f"reported {span(age_s)} ago from {case.replica.node}"


def _model(case: Case) -> tuple[Concern, str]:
    route, facts = case.view.route, case.replica.facts
    if not route.pool:
        return Concern.BLOCKS, NO_MODEL
    known = facts.served_models if facts else ()
    if known and route.served_as and route.served_as not in known:
        text = f"it serves {', '.join(known[:5])}, not {route.served_as}, as {route.pool} asks"
        return Concern.BLOCKS, text
    return Concern.FINE, f"{route.served_as or 'unknown yet'} in pool {route.pool}"


def _edges(case: Case) -> tuple[Concern, str]:
    if not case.edges:
        return Concern.LIMITS, "no edge is connected; those that run go on with what they have"
    behind = [
        f"{edge.edge} {'refused it: ' + edge.last_error if edge.last_error else 'has not acked'}"
        for edge in case.edges
        if not edge.in_sync
    ]
    if behind:
        return Concern.LIMITS, f"not all have the newest routing: {'; '.join(behind[:5])}"
    return Concern.FINE, f"{len(case.edges)} have the newest routing"


def _room(case: Case) -> tuple[Concern, str]:
    view = case.view
    used = f"{view.inflight} of {view.limit_slots} slots in use"
    if view.limit_slots and view.inflight >= view.limit_slots:
        waits = f", {case.pool.queued} wait at the edges" if case.pool else ""
        return Concern.LIMITS, f"full: {used}{waits}"
    return Concern.FINE, used


def _memory(case: Case) -> tuple[Concern, str]:
    kv, waiting = case.view.kv_cache_usage_ratio, case.view.waiting or 0
    if kv is None:
        return Concern.FINE, "its KV cache is not reported"
    text = f"{kv:.0%} of its KV cache is used, {waiting} wait inside"
    return (Concern.LIMITS if kv >= KV_FULL_RATIO and waiting else Concern.FINE), text


def _demand(case: Case) -> tuple[Concern, str]:
    if case.pool is None:
        return Concern.FINE, "no pool, so nobody can ask"
    asked = case.pool.requests_1m
    text = f"{asked or 'no'} requests for {case.pool.pool} in the last minute"
    return (Concern.FINE if asked or case.view.inflight else Concern.LIMITS), text


LOOKS: dict[str, Look] = {
    "intent": _intent,
    "hold": lambda case: explain_steering.hold(case, span),
    "GPU": _gpu,
    "engine": _engine,
    "breaker": _breaker,
    "model": _model,
    "agent": _agent,
    "edges": _edges,
    "weights": lambda case: explain_steering.weights(case, span),
    "memory": _memory,
    "room": _room,
    "demand": _demand,
}
"""In order of what to say first, among those that matter as much."""


# What it adds up to


def _headline(case: Case, worst: Finding) -> str:
    name = case.replica.name
    if worst.concern is Concern.BLOCKS:
        return f"{name} gets no new requests: {worst.what} {worst.text}"
    if worst.concern is Concern.LIMITS:
        return f"{name} is in rotation, but {worst.what} {worst.text}"
    return f"{name} is in rotation, and nothing holds it back"


def _traffic(case: Case) -> str:
    view, pool = case.view, case.view.route.pool or "no pool"
    share = "none" if view.share_ratio is None else f"{view.share_ratio:.0%}"
    failed = f", {view.failures_1m} failed" if view.failures_1m else ""
    full = f", {view.overloads_1m} found it full" if view.overloads_1m else ""
    return (
        f"{share} of the attempts of {pool} in the last minute (its part of the slots is "
        f"{view.weight:.0%}{failed}{full})"
    )


def _effect(case: Case) -> str:
    pool = case.pool
    if pool is None:
        return "it is in no pool"
    return (
        f"{pool.pool} has {pool.open_slots} of {pool.healthy_slots} healthy slots open on "
        f"{pool.open} of {pool.replicas} replicas; {pool.queued} requests wait, "
        f"{pool.shed_1m} of {pool.requests_1m} were refused in the last minute"
    )


def _advice(case: Case, findings: Iterable[Finding]) -> Iterable[str]:
    node = case.replica.node or "its node"
    about = {"name": case.replica.name, "node": node, "pool": case.view.route.pool}
    for finding in findings:
        if finding.concern is not Concern.FINE and finding.what in _ADVICE:
            yield _ADVICE[finding.what].format(**about)


def span(seconds: float) -> str:
    """A length of time in its largest unit, two digits."""
    for unit, name in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{max(0.0, seconds):.1f} s"

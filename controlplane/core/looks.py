"""What can keep requests from a replica: one look a cause, told with the numbers it was judged by.

Rules: nothing is guessed: each look reads what the decision was made from; BLOCKS must go before
the replica gets new requests, LIMITS means fewer than it could take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.core import explain_steering
from controlplane.core.bounds import clip
from controlplane.core.placement import mismatch
from controlplane.core.replica import Node, Replica
from controlplane.core.serving import silence
from trimtab.model import BreakerState, EngineState, GpuSample, Intent, Serving
from trimtab.policy import breaker as policy
from trimtab.policy.breaker import SERVING, Breaker, Cause, Evidence
from trimtab.policy.progress import idle_patience_s
from trimtab.steered import Override
from trimtab.verdict import is_far
from trimtab.views import Concern, EdgeView, FleetEvent, PoolView, ReplicaAtEdge, ReplicaView

KV_FULL_RATIO = 0.95
NO_MODEL = "no model is known of it yet, so no pool has it"
UNSEEN_S = 5.0
"""A request may take as long to reach the engine: a large body, a slow prompt."""
ASKED_MIN = 20
"""Fewer attempts say nothing about where requests go."""
UNDER_SHARE = 0.75
"""Of its part of the slots: a share below that is worth a reason."""
_SLOWED = {0x8: "hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}
_TURNED_AWAY = "certificate refused"


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
    peers: tuple[ReplicaView, ...] = ()
    """The others of its pool."""
    software_version: str = ""
    left_s: Mapping[str, float] = field(default_factory=dict)
    """How long ago edges left, by name."""
    node_events: Sequence[FleetEvent] = ()
    told: Sequence[ReplicaAtEdge] = ()
    """Where edges sent what it could have had."""
    overrides: Sequence[Override] = ()
    restart: str = ""
    """Whether its engine is restarted without a person."""


Look = Callable[[Case], tuple[Concern, str]]


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
    slowed = [gpu for gpu in case.view.gpus if _slowed(gpu)]
    if slowed:
        heat = slowed[0].temperature_celsius
        at = f" at {heat} C" if heat is not None else ""
        return Concern.LIMITS, f"GPU {slowed[0].index} is slowed down by {_slowed(slowed[0])}{at}"
    if not case.view.gpus:
        why = case.node.gpu_detail if case.node else ""
        return Concern.FINE, f"no readings{f': {why}' if why else ''}"
    return Concern.FINE, f"{len(case.view.gpus)} in use, no fatal Xid since its engine started"


def _slowed(gpu: GpuSample) -> str:
    """What makes it slower than it could be; empty if nothing does."""
    reasons = gpu.throttle_reasons or 0
    return " and ".join(dict.fromkeys(why for bit, why in _SLOWED.items() if reasons & bit))


def _breaker(case: Case) -> tuple[Concern, str]:
    view, breaker = case.view, case.replica.standing.breaker
    state = breaker.state.name.lower()
    why = f": {breaker.cause.value}" if breaker.cause else ""
    since = f" for {span(view.breaker_age_ms / 1000)}" if breaker.cause else ""
    text = f"{state}{since}{why}{_judged(breaker, case.replica.standing.evidence)}"
    if view.ejected_for_ms is not None:
        wait = f"in {span(view.ejected_for_ms / 1000)}" if view.ejected_for_ms else "once it serves"
        text += f"; probed {wait}"
    if breaker.state is BreakerState.PROBING:
        text += f"; {breaker.probes} of {policy.probes_needed(breaker)} probes answered"
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


def _judged(breaker: Breaker, seen: Evidence | None) -> str:
    """What edges counted when it moved, and from what number on that counts."""
    if seen is None:
        return ""
    ratios = {Cause.FAILING: (policy.FAILING_RATIO, policy.FAILING_MIN)}
    ratios |= dict.fromkeys(
        (Cause.SPARED, Cause.IMPAIRED), (policy.IMPAIRED_RATIO, policy.IMPAIRED_MIN)
    )
    if breaker.cause in ratios:
        ratio, least = ratios[breaker.cause]
        counted = f"{seen.failed} of {seen.dispatched} attempts of 30 s"
        return f" ({counted}; {ratio:.0%} of at least {least} is too much)"
    if breaker.cause is Cause.STUMBLED:
        return f" ({seen.failed} of {seen.dispatched} attempts)"
    if breaker.cause is Cause.UNANSWERED:
        waited, limit = span(seen.unanswered_s), span(seen.patience_s)
        return f" (requests waited {waited} for a first byte, and it ran none; {limit} is too much)"
    if breaker.cause is Cause.REFUSED:
        silent = " and its agent is silent" if seen.agent_silent else ""
        return f" ({seen.refusing_edges} edges say so{silent})"
    return ""


def _agent(case: Case) -> tuple[Concern, str]:
    said = silence(case.replica, case.node, case.now_s, case.stale_s)
    if said:
        turned_away = [
            event for event in case.node_events if event.what == _TURNED_AWAY and event.details
        ]
        why = f"; it was turned away: {turned_away[-1].details[0].value}" if turned_away else ""
        return Concern.LIMITS, said + why
    age_s = case.replica.age_s(case.now_s)
    if age_s is None:
        return Concern.LIMITS, "no agent has reported it to this leader"
    return Concern.FINE, f"reported {span(age_s)} ago from {case.replica.node}"


def _model(case: Case) -> tuple[Concern, str]:
    route, facts = case.view.route, case.replica.facts
    if not route.pool:
        return Concern.BLOCKS, NO_MODEL
    if wrong := mismatch(route.served_as, facts):
        return Concern.BLOCKS, f"{wrong}, as {route.pool} asks"
    return Concern.FINE, f"{route.served_as or 'unknown yet'} in pool {route.pool}"


def _adapters(case: Case) -> tuple[Concern, str]:
    own = case.view.route.adapters
    theirs = sorted({name for peer in case.peers for name in peer.route.adapters} - {*own})
    if not theirs:
        return Concern.FINE, f"{len(own)}, none that others of its pool have beside"
    text = f"it lacks {clip(', '.join(theirs))}, which others of {case.view.route.pool} have"
    return Concern.LIMITS, f"{text}: what asks for that never comes here"


def _context(case: Case) -> tuple[Concern, str]:
    own = case.view.route.max_model_len_tokens
    lengths = [peer.route.max_model_len_tokens or 0 for peer in case.peers]
    longest = max(lengths, default=0)
    if own is None or own >= longest:
        return Concern.FINE, "unknown" if own is None else f"{own:,} tokens, as long as any other"
    text = f"it takes {own:,} tokens, others of {case.view.route.pool} up to {longest:,}"
    return Concern.LIMITS, f"{text}: it turns down longer requests that come here"


def _versions(case: Case) -> tuple[Concern, str]:
    peers = {f"edge {edge.edge}": edge.edge_version for edge in case.edges}
    if case.node is not None:
        peers["its agent"] = case.node.hello.agent_version
    ours = case.software_version
    far = [f"{who} has {version}" for who, version in peers.items() if is_far(version, ours)]
    if far:
        text = f"{'; '.join(far[:5])}, more than one minor from the control plane's {ours}"
        return Concern.LIMITS, text
    return Concern.FINE, f"its agent and the edges are within one minor of {ours}"


def _affinity(case: Case) -> tuple[Concern, str]:
    picked, away = (
        sum(one.picked for one in case.told),
        sum(one.at_home_elsewhere for one in case.told),
    )
    other = sum(one.without_room + one.busier for one in case.told)
    asked, view = picked + away + other, case.view
    if not asked:
        return Concern.FINE, "edges remember no request that it could have had"
    text = f"{away} of {asked} attempts that it could have had went to their conversation's home"
    under = view.share_ratio is not None and view.share_ratio < UNDER_SHARE * view.weight
    drawn = asked >= ASKED_MIN and away > other and under
    return (Concern.LIMITS if drawn else Concern.FINE), text


def _edges(case: Case) -> tuple[Concern, str]:
    left = [f"{name} for {span(ago_s)}" for name, ago_s in case.left_s.items()]
    gone = f"not connected any more: {'; '.join(left[:5])}" if left else ""
    if not case.edges:
        text = "none is connected; those that run go on with what they have"
        return Concern.LIMITS, f"{text}{f'; {gone}' if gone else ''}"
    if gone:
        return Concern.LIMITS, f"{gone}; if they run, they go on with what they have"
    behind = [
        f"{edge.edge} {'refused it: ' + edge.last_error if edge.last_error else 'has not acked'}"
        for edge in case.edges
        if not edge.in_sync
    ]
    if behind:
        return Concern.LIMITS, f"not all have the newest routing: {'; '.join(behind[:5])}"
    return Concern.FINE, f"{len(case.edges)} have the newest routing"


def _work(case: Case) -> tuple[Concern, str]:
    since_s, inflight = case.replica.unseen_since_s, case.view.inflight
    if since_s is None or case.now_s - since_s < UNSEEN_S or not inflight:
        return Concern.FINE, f"edges have {inflight} on it, it runs {case.view.running or 0}"
    text = f"edges have {inflight} on it, and it has run none for {span(case.now_s - since_s)}"
    waited_s = case.replica.standing.waited_s(case.now_s)
    if not waited_s or case.replica.sample is None:
        return Concern.LIMITS, f"{text}: its core hangs, or they wait for their callers"
    patience_s = idle_patience_s(case.replica.sample, case.replica.standing.slowest_s)
    text += f": its core hangs, as far as requests see that wait for {span(waited_s)}"
    return Concern.LIMITS, f"{text}; after {span(patience_s)} it is ejected, if others serve"


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
    "work": _work,
    "restart": lambda case: (Concern.FINE, case.restart),
    "model": _model,
    "adapters": _adapters,
    "context": _context,
    "agent": _agent,
    "edges": _edges,
    "versions": _versions,
    "memory": _memory,
    "weights": lambda case: explain_steering.weights(case, span),
    "room": _room,
    "affinity": _affinity,
    "demand": _demand,
}
"""In order of what to say first, among those that matter as much."""


def span(seconds: float) -> str:
    """A length of time in its largest unit, two digits."""
    for unit, name in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{max(0.0, seconds):.1f} s"

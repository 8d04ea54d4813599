"""Why one replica gets the traffic it gets: every cause looked at, the worst first.

Rules: nothing is guessed: each look reads what the decision was made from, and says the numbers;
BLOCKS must go before the replica gets new requests, LIMITS means fewer than it could take. The
headline is the first thing that matters, so that one line is enough at 3 a.m.; advice is only what
helps against something found.
"""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.core import explain_steering
from controlplane.core.looks import LOOKS, Case
from controlplane.core.registry import Registry
from trimtab.views import Concern, Explanation, Finding, Fleet, FleetEvent

EVENTS_SHOWN = 20
_ADVICE = {
    **explain_steering.ADVICE,
    "intent": "ctl uncordon {name}",
    "engine": "look at the engine's own log on {node}; it comes back by itself once it serves",
    "GPU": "drain what is left, then reset or replace the GPU on {node} (dmesg has the Xid)",
    "breaker": "ctl events --for {name} --type breaker",
    "work": "if it stays so, restart the engine on {node}: its counters can't tell this hang",
    "adapters": "load them on it, or ask for them where they are",
    "context": "start all engines of a pool with the same --max-model-len",
    "versions": "upgrade what is behind: docs/upgrade.md",
    "affinity": "nothing is wrong: conversations stay where their prompts are cached",
    "agent": "on {node}: is trimtab-agent running, and does it reach a control plane?",
    "model": "ctl get pools; start the engine with --served-model-name of a pool, or add the pool",
    "edges": "ctl get edges: an edge works with what it has until it takes the newest",
    "room": "nothing is wrong with it: the rest waits at the edges; more replicas take more",
    "memory": "long prompts fill its KV cache; requests wait there rather than at the edges",
}


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


def case(registry: Registry, fleet: Fleet, name: str, now_s: float, wall_s: float) -> Case:
    """What there is to look at for one replica; `fleet` as it is now."""
    replica, left_at_s = registry.replicas[name], registry.edges.left_at_s
    view = next(view for view in fleet.replicas if view.route.replica == name)
    others = (other for other in fleet.replicas if other.route.pool == view.route.pool)
    return Case(
        replica=replica,
        view=view,
        node=registry.agents.by_node.get(replica.node),
        pool=next((pool for pool in fleet.pools if pool.pool == view.route.pool), None),
        edges=fleet.edges,
        now_s=now_s,
        wall_s=wall_s,
        stale_s=registry.stale_s,
        peers=tuple(other for other in others if other is not view),
        software_version=fleet.controlplane_version,
        left_s={edge: now_s - at_s for edge, at_s in left_at_s.items()},
        overrides=fleet.overrides,
    )


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

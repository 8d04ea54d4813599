"""The fleet for people: what ctl and the status page show.

Rules: computed on demand from the registry, never stored; ages are of now; rates and shares are
over the last minute; absent is None, not zero. O(replicas + edges x replicas).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.core.credits import full_slots, open_slots, weights
from controlplane.core.edges import Edge
from controlplane.core.registry import Registry
from controlplane.core.replica import Node, Replica
from controlplane.core.subscription import Subscription
from controlplane.core.window import Minute, quantile
from trimtab.model import BreakerState, GpuSample, Route, Serving
from trimtab.policy.breaker import Breaker
from trimtab.views import AgentView, EdgeView, Fleet, PoolView, ReplicaView

RATE_SPAN_MIN_S = 1.0  # a rate over less says nothing


@dataclass(frozen=True, slots=True)
class Leader:
    """Who computes this, and how far its pushes are."""

    fleet: str
    name: str
    controlplane_version: str
    term: int
    version: int


def fleet(
    leader: Leader, registry: Registry, subscriptions: Mapping[int, Subscription], now_s: float
) -> Fleet:
    """Everything at a glance."""
    replicas = _replicas(registry, now_s)
    edges = sorted(registry.edges.by_name.values(), key=lambda edge: edge.hello.edge)
    nodes = sorted(registry.agents.by_node.values(), key=lambda node: node.hello.node)
    return Fleet(
        name=leader.fleet,
        leader=leader.name,
        term=leader.term,
        version=leader.version,
        controlplane_version=leader.controlplane_version,
        replicas=replicas,
        edges=tuple(_edge(edge, subscriptions.get(edge.stream), now_s) for edge in edges),
        agents=tuple(_agent(node, now_s) for node in nodes),
        pools=_pools(registry, replicas, edges, now_s),
        overrides=registry.overrides.views(registry.wall_s(now_s)),
    )


def _replicas(registry: Registry, now_s: float) -> tuple[ReplicaView, ...]:
    known = sorted(registry.replicas.values(), key=lambda replica: replica.name)
    totals = {replica.name: replica.minute.totals(now_s) for replica in known}
    dispatched = _dispatched(known, totals)
    slots = open_slots(known, now_s)
    shares = weights(known, slots)
    return tuple(
        _replica(
            replica,
            registry.agents.by_node.get(replica.node),
            totals[replica.name],
            Traffic(
                weight=shares.get(replica.name, 0.0),
                slots=slots.get(replica.name, 0),
                inflight=registry.edges.inflight(replica.name),
                pool_dispatched=dispatched[_route(replica).pool],
            ),
            now_s,
        )
        for replica in known
    )


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a replica gets, beside its own counters."""

    weight: float
    slots: int
    inflight: int
    pool_dispatched: int


def _replica(
    replica: Replica,
    node: Node | None,
    total: Counter[Hashable],
    traffic: Traffic,
    now_s: float,
) -> ReplicaView:
    route, ttft = _route(replica), _ttft(total)
    return ReplicaView(
        route=route,
        state=replica.state,
        intent=replica.wish.intent,
        limit_slots=traffic.slots,
        full_slots=full_slots(replica, now_s),
        weight=traffic.weight,
        inflight=traffic.inflight,
        ttft_p50_s=quantile(ttft, 0.50),
        ttft_p99_s=quantile(ttft, 0.99),
        generation_tokens_per_s=_rate(total, replica.minute, now_s),
        share_ratio=_ratio(total["dispatched"], traffic.pool_dispatched),
        failures_1m=total["failures"],
        overloads_1m=total["overloads"],
        report_age_ms=_ms(replica.age_s(now_s)),
        **_breaker(replica.standing.breaker, now_s),
        **_facts(replica, now_s),
        **_sample(replica, node, now_s),
    )


def _facts(replica: Replica, now_s: float) -> dict[str, Any]:
    facts = replica.facts
    if facts is None:
        return {}
    return {
        "max_num_seqs": facts.max_num_seqs,
        "max_num_seqs_source": facts.max_num_seqs_source,
        "vllm_version": facts.vllm_version,
        "uptime_ms": replica.uptime_ms(now_s),
    }


def _sample(replica: Replica, node: Node | None, now_s: float) -> dict[str, Any]:
    sample = replica.sample
    if sample is None:
        return {}
    return {
        "state_reason": sample.reason,
        "state_age_ms": sample.state_age_ms + (_ms(replica.age_s(now_s)) or 0),
        "running": sample.running,
        "waiting": sample.waiting,
        "kv_cache_usage_ratio": sample.kv_cache_usage_ratio,
        "gpus": _gpus(node, sample.gpus),
    }


def _breaker(breaker: Breaker, now_s: float) -> dict[str, Any]:
    ejected = breaker.state is BreakerState.EJECTED
    return {
        "breaker_reason": breaker.cause.value if breaker.cause else "",
        "breaker_age_ms": _ms(now_s - breaker.since_s) if breaker.cause else 0,
        "ejected_for_ms": _ms(breaker.until_s - now_s) if ejected else None,
        "ejections": breaker.ejections,
    }


def _edge(edge: Edge, subscription: Subscription | None, now_s: float) -> EdgeView:
    total = edge.minute.totals(now_s)
    return EdgeView(
        edge=edge.hello.edge,
        edge_version=edge.hello.edge_version,
        listen_url=edge.hello.listen_url,
        acked_version=subscription.acked_version if subscription else 0,
        sent_version=subscription.sent_version if subscription else 0,
        last_error=subscription.last_error if subscription else "",
        inflight=sum(edge.inflight.values()),
        queued=sum(use.queued for use in edge.pools.values()),
        requests_1m=_sum(total, "requests"),
        shed_1m=_sum(total, "shed"),
        connected_ms=_ms(now_s - edge.connected_at_s) or 0,
        report_age_ms=_age_ms(edge.reported_at_s, now_s),
    )


def _agent(node: Node, now_s: float) -> AgentView:
    return AgentView(
        node=node.hello.node,
        agent_version=node.hello.agent_version,
        connected=node.stream is not None,
        report_age_ms=_age_ms(node.reported_at_s, now_s),
        gpu_detail=node.gpu_detail,
    )


def _pools(
    registry: Registry, views: Iterable[ReplicaView], edges: Iterable[Edge], now_s: float
) -> tuple[PoolView, ...]:
    counts = {name: Counter[str]() for name in registry.pools()}
    for view in views:
        if view.route.pool in counts:
            _count_replica(counts[view.route.pool], view, registry.replicas[view.route.replica])
    for edge in edges:
        total = edge.minute.totals(now_s)
        for name, count in counts.items():
            count["requests_1m"] += total["requests", name]
            count["shed_1m"] += total["shed", name]
            count["queued"] += edge.pools[name].queued if name in edge.pools else 0
    alarm = registry.breakers.alarm
    return tuple(_pool(name, counts[name], alarm(name)) for name in sorted(counts))


def _pool(name: str, count: Counter[str], alarm: str) -> PoolView:
    return PoolView(
        pool=name,
        replicas=count["replicas"],
        open=count["open"],
        open_slots=count["open_slots"],
        healthy_slots=count["healthy_slots"],
        inflight=count["inflight"],
        queued=count["queued"],
        shed_1m=count["shed_1m"],
        requests_1m=count["requests_1m"],
        alarm=alarm,
    )


def _count_replica(count: Counter[str], view: ReplicaView, replica: Replica) -> None:
    count["replicas"] += 1
    count["open"] += view.route.serving is Serving.OPEN
    count["open_slots"] += view.limit_slots
    count["healthy_slots"] += view.full_slots if replica.health is Serving.OPEN else 0
    count["inflight"] += view.inflight


def _route(replica: Replica) -> Route:
    if replica.route is None:
        raise ValueError(f"{replica.name} was never reviewed")
    return replica.route


def _dispatched(
    replicas: Iterable[Replica], totals: Mapping[str, Counter[Hashable]]
) -> Counter[str]:
    """Attempts of the last minute by pool."""
    by_pool: Counter[str] = Counter()
    for replica in replicas:
        by_pool[_route(replica).pool] += totals[replica.name]["dispatched"]
    return by_pool


def _gpus(node: Node | None, indexes: tuple[int, ...]) -> tuple[GpuSample, ...]:
    return tuple(gpu for gpu in node.gpus if gpu.index in indexes) if node else ()


def _ttft(total: Counter[Hashable]) -> dict[float, int]:
    return {key[1]: count for key, count in total.items() if isinstance(key, tuple)}


def _sum(total: Counter[Hashable], kind: str) -> int:
    """All counts of a kind, over pools."""
    return sum(n for key, n in total.items() if isinstance(key, tuple) and key[0] == kind)


def _rate(total: Counter[Hashable], minute: Minute, now_s: float) -> float | None:
    span_s = minute.span_s(now_s)
    return total["tokens"] / span_s if "tokens" in total and span_s >= RATE_SPAN_MIN_S else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _age_ms(since_s: float | None, now_s: float) -> int | None:
    return None if since_s is None else _ms(now_s - since_s)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, round(seconds * 1000))

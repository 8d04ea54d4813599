"""Explanations, with what the leader holds and what its edges tell.

Rules: what edges are asked is bounded (controlplane/questions); who did not answer is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from controlplane.core import explanation, model_account, request_account, tenant_account
from controlplane.core.bounds import clip
from controlplane.core.credits import pace
from controlplane.core.model_account import SHOWN, ModelCase
from controlplane.core.tenant_account import TenantCase
from controlplane.loop import ControlLoop
from controlplane.questions import Told
from trimtab.codec import WireError, decode
from trimtab.runtime import clock
from trimtab.v1 import explain_pb2
from trimtab.verdict import in_full_use, is_open
from trimtab.views import Account, EdgeRecord, Explanation, Fleet, ReplicaAtEdge, TenantAtEdge

T = TypeVar("T")


async def replica(loop: ControlLoop, name: str) -> Explanation:
    """Why it gets the traffic it gets; KeyError when there is none of this name."""
    told = await loop.ask_edges("replica", name)
    known = (_read(one, explain_pb2.ReplicaAtEdge(), ReplicaAtEdge) for one in told)
    return _explain(loop, name, loop.fleet(), tuple(filter(None, known)))


def _explain(
    loop: ControlLoop, name: str, fleet: Fleet, told: tuple[ReplicaAtEdge, ...] = ()
) -> Explanation:
    case = explanation.case(loop.registry, fleet, name, clock.now_s(), clock.wall_s())
    node_events = loop.journal.latest(case.replica.node, explanation.EVENTS_SHOWN)
    restart = loop.remedies.says(name)
    case = replace(case, told=told, node_events=node_events, restart=restart)
    return explanation.explain(case, loop.journal.latest(name, explanation.EVENTS_SHOWN))


async def request(loop: ControlLoop, request_id: str) -> Account:
    """How it went; KeyError, with where it was looked for, when nobody knows."""
    told = await loop.ask_edges("decision", request_id)
    found = []
    for one in told:
        record = request_account.read(one.content) if one.content else None
        if record is not None:
            found.append((record, EdgeRecord(one.edge, one.content.decode())))
    if not found:
        raise KeyError(_nowhere(request_id, told))
    return request_account.tell(found)


def _nowhere(request_id: str, told: Sequence[Told]) -> str:
    asked = f"none of the {len(told)} connected edges remembers" if told else "no edge is connected"
    who = "; ".join(f"{one.edge}: {one.error}" for one in told if one.error)
    return (
        f"{asked} a request {clip(request_id)!r}: it still runs, is too old (an edge keeps its "
        "latest 2,048), was turned away before the queue (its answer says why), or its edge has "
        f"restarted{f' ({who})' if who else ''}"
    )


async def tenant(loop: ControlLoop, name: str) -> Account:
    """How it is served; KeyError when no key has this name and no edge knows it."""
    told = await loop.ask_edges("tenant", name)
    known = {one.edge: _read(one, explain_pb2.TenantAtEdge(), TenantAtEdge) for one in told}
    keys = [key for key in loop.live.now.keys if key.name == name]
    if not keys and not any(found and found.pools for found in known.values()):
        names = sorted({key.name for key in loop.live.now.keys})
        raise KeyError(f"no key is called {clip(name)!r}; there are: {', '.join(names[:20])}")
    case = TenantCase(
        name=name,
        keys=keys,
        told={edge: found for edge, found in known.items() if found is not None},
        silent=[f"{one.edge}: {one.error}" for one in told if known[one.edge] is None],
        pools={pool.pool: pool for pool in loop.fleet().pools},
    )
    return tenant_account.tell(case)


def _read(told: Told, message: Message, kind: type[T]) -> T | None:
    """An edge's answer; None, and its error says why, when it is none."""
    if not told.error:
        try:
            message.ParseFromString(told.content)
            return decode(message, kind)
        except (DecodeError, WireError) as error:
            told.error = clip(str(error)) or "its answer can't be read"
    return None


async def model(loop: ControlLoop, name: str) -> Account:
    """What it can take; KeyError when no pool serves it."""
    fleet, now_s = loop.fleet(), clock.now_s()
    pool = next((view for view in fleet.pools if view.pool == _pool_of(loop, name, fleet)), None)
    if pool is None:
        known = ", ".join(view.pool for view in fleet.pools[:20]) or "none"
        raise KeyError(f"no pool serves {clip(name)!r}; pools: {known}")
    views = [view for view in fleet.replicas if view.route.pool == pool.pool]
    members = [view.route.replica for view in views]
    odd = [view for view in views if not is_open(view)] + [
        view for view in views if is_open(view) and not in_full_use(view)
    ]
    edges = loop.registry.edges.by_name.values()
    uses = [edge.pools[pool.pool] for edge in edges if pool.pool in edge.pools]
    case = ModelCase(
        name=name if name == pool.pool else f"{name} ({pool.pool})",
        pool=pool,
        odd=[_explain(loop, view.route.replica, fleet) for view in odd[:SHOWN]],
        queued_work=sum(tenant.queued_work for use in uses for tenant in use.tenants),
        work_per_s=pace([loop.registry.replicas[member] for member in members], now_s),
    )
    return model_account.tell(case)


def _pool_of(loop: ControlLoop, name: str, fleet: Fleet) -> str:
    """The pool that serves a name: its own, an alias, an adapter of a replica."""
    for pool in loop.live.now.placement.pools:
        if name in pool.aliases:
            return pool.name
    routes = (view.route for view in fleet.replicas)
    return next((route.pool for route in routes if name in route.adapters), name)

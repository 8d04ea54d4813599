"""Which models there are, and for whom: pools, their aliases, and LoRA adapters.

Rules: a name means one thing: a pool, else an alias, else an adapter, and an adapter that two pools
have is the first pool's, by name. An adapter is known as long as a replica of its pool is known to
have it. What a key may not ask for does not exist for it: not in lists, nor in messages. Nobody is
shown where an adapter's files are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from edge.core import problems
from edge.core.problems import Problem
from trimtab.model import ApiKey, Pool, Route, Snapshot


class Target(NamedTuple):
    """What a name means."""

    name: str
    """As it was asked for, and as it is answered."""
    pool: Pool
    adapter: str = ""
    """The name is this adapter's; empty if it is the pool's."""


Targets = Mapping[str, Target]
"""By name, in the order in which they are listed."""


def targets(snapshot: Snapshot) -> Targets:
    """All names. O(pools + routes x adapters)."""
    found = {pool.name: Target(pool.name, pool) for pool in snapshot.pools}
    for pool in snapshot.pools:
        for alias in pool.aliases:
            found.setdefault(alias, Target(alias, pool))
    adapters = {(route.pool, name) for route in snapshot.routes for name in route.adapters}
    pools = {pool.name: pool for pool in snapshot.pools}
    for pool_name, name in sorted(adapters):
        if pool_name in pools:
            found.setdefault(name, Target(name, pools[pool_name], name))
    return found


def find(known: Targets, caller: ApiKey, name: str | None) -> Target | Problem:
    """What a caller means; one who names nothing means the only pool that he can use."""
    if name is None:
        return _only(visible(known, caller))
    target = known.get(name)
    if target is None or not _allows(caller, name):
        return unknown(known, caller, name)
    return target


def unknown(known: Targets, caller: ApiKey, name: str) -> Problem:
    """There is no such model for this caller."""
    names = [target.name for target in visible(known, caller)]
    return problems.unknown_model(name, [other for other in names if other != name])


def visible(known: Targets, caller: ApiKey) -> list[Target]:
    """What a caller can ask for."""
    return [target for target in known.values() if _allows(caller, target.name)]


def card(target: Target, routes: Iterable[Route], created: int) -> dict[str, object]:
    """A model as /v1/models shows it, with the longest context that all its replicas can take.

    As vLLM lists them: an alias has the root of what it names, an adapter its base as parent.
    """
    having = [route for route in routes if has(route, target.adapter)]
    lengths = [r.max_model_len_tokens for r in having if r.max_model_len_tokens is not None]
    listed: dict[str, object] = {
        "id": target.name,
        "object": "model",
        "created": created,
        "owned_by": "trimtab",
        "root": target.adapter or target.pool.name,
        "parent": target.pool.name if target.adapter else None,
    }
    return listed | ({"max_model_len": min(lengths)} if lengths else {})


def has(route: Route, adapter: str) -> bool:
    """Whether a replica can serve an adapter; every one can serve its pool's own model."""
    return not adapter or adapter in route.adapters


def _only(seen: Sequence[Target]) -> Target | Problem:
    whole = [target for target in seen if not target.adapter]
    if len({target.pool.name for target in whole}) == 1:
        return whole[0]
    return problems.model_required([target.name for target in seen])


def _allows(caller: ApiKey, name: str) -> bool:
    return not caller.models or name in caller.models

"""Differences between two snapshots, and how to apply them.

Rules: `patch(old, diff(old, new, v)) == new` for any two snapshots whose names are unique, up to
the order of entries, which is by name; nothing changed is None. Pushing differences keeps the
message small when one replica of a thousand moves (xDS's delta idea, envoyproxy.io).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from trimtab.model import ApiKey, Delta, Pool, Route, Snapshot

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def diff(old: Snapshot, new: Snapshot, base_version: int) -> Delta | None:
    """What turns `old` into `new`; None when nothing does."""
    pools, pools_gone = _changes(old.pools, new.pools, _pool_name)
    routes, routes_gone = _changes(old.routes, new.routes, _route_name)
    keys, keys_gone = _changes(old.keys, new.keys, _key_hash)
    delta = Delta(
        base_version=base_version,
        pools=pools,
        pools_gone=pools_gone,
        routes=routes,
        routes_gone=routes_gone,
        keys=keys,
        keys_gone=keys_gone,
        policy=None if new.policy == old.policy else new.policy,
    )
    return None if delta == Delta(base_version) else delta


def patch(old: Snapshot, delta: Delta) -> Snapshot:
    """`old` with the changes applied."""
    return Snapshot(
        pools=_merge(old.pools, delta.pools, delta.pools_gone, _pool_name),
        routes=_merge(old.routes, delta.routes, delta.routes_gone, _route_name),
        keys=_merge(old.keys, delta.keys, delta.keys_gone, _key_hash),
        policy=delta.policy or old.policy,
    )


def _pool_name(pool: Pool) -> str:
    return pool.name


def _route_name(route: Route) -> str:
    return route.replica


def _key_hash(key: ApiKey) -> bytes:
    return key.sha256


def _changes(
    old: Iterable[T], new: Iterable[T], name: Callable[[T], K]
) -> tuple[tuple[T, ...], tuple[K, ...]]:
    before = {name(item): item for item in old}
    after = {name(item): item for item in new}
    changed = tuple(item for key, item in after.items() if before.get(key) != item)
    gone = tuple(key for key in before if key not in after)
    return changed, gone


def _merge(
    old: Iterable[T], changed: Iterable[T], gone: Iterable[K], name: Callable[[T], K]
) -> tuple[T, ...]:
    merged = {name(item): item for item in old}
    merged.update((name(item), item) for item in changed)
    for key in gone:
        merged.pop(key, None)
    return tuple(sorted(merged.values(), key=lambda item: str(name(item))))

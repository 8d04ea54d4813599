"""The routing state that edges are pushed: one immutable value, checked before it leaves.

Rules: entries are in order of their names, so equal states are equal values; a replica that has no
pool yet is left out, as nobody could ask for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from controlplane.core.replica import Replica
from trimtab.model import ApiKey, EdgePolicy, Pool, Snapshot


def build(
    replicas: Iterable[Replica],
    pools: Sequence[Pool],
    keys: Sequence[ApiKey],
    policy: EdgePolicy,
) -> Snapshot:
    """The snapshot of now; pools nobody configured are added by the replicas in them."""
    routes = [replica.route for replica in replicas if replica.route and replica.route.pool]
    configured = {pool.name: pool for pool in pools}
    found = {route.pool: Pool(route.pool) for route in routes}
    return Snapshot(
        pools=tuple(sorted({**found, **configured}.values(), key=lambda pool: pool.name)),
        routes=tuple(sorted(routes, key=lambda route: route.replica)),
        keys=tuple(sorted(keys, key=lambda key: key.sha256)),
        policy=policy,
    )


def faults(snapshot: Snapshot) -> list[str]:
    """Why a snapshot must not be published; empty if it may."""
    pools = {pool.name for pool in snapshot.pools}
    names = [name for pool in snapshot.pools for name in (pool.name, *pool.aliases)]
    replicas = [route.replica for route in snapshot.routes]
    hashes = [key.sha256.hex() for key in snapshot.keys]
    lost = [route for route in snapshot.routes if route.pool not in pools]
    return [
        *(f"{name!r} names two pools" for name in _twice(names)),
        *(f"{name!r} names two replicas" for name in _twice(replicas)),
        *(f"key {sha256} is there twice" for sha256 in _twice(hashes)),
        *(f"replica {route.replica!r} is in no pool, {route.pool!r}" for route in lost),
    ]


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]

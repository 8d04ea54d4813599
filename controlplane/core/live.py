"""The configuration in effect, as the leader's parts need it, and whether another one may be.

Rules: what was applied last counts, whole; until something was, and after a rollback to 0, it is
the file of the control plane that leads. One that edges would refuse is refused here first.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from controlplane.core import snapshot
from controlplane.core.bounds import MODEL_NAMES_LIMIT, REPLICA_LIMIT, clip, name_fault, url_fault
from controlplane.core.placement import EngineSpec, Placement, spec_of
from controlplane.core.records import ConfigRecord
from controlplane.core.replica import Replica
from trimtab.model import ApiKey, EdgePolicy
from trimtab.views import ConfigRevision, ConfiguredEngine, LiveConfig

FAULTS_SHOWN = 20
KEYS_LIMIT = 10_000
POOLS_LIMIT = 1_000
NAMES_LIMIT = 256  # that a key may ask for
SHA256_BYTES = 32


@dataclass(frozen=True, slots=True)
class Live:
    """What is in effect."""

    placement: Placement
    keys: tuple[ApiKey, ...]
    policy: EdgePolicy
    node: str = ""
    """After it, engines without a name are called."""


def effective(config: LiveConfig, node: str) -> Live:
    """A configuration ready for use."""
    engines = [spec_of(engine, node) for engine in config.engines]
    return Live(Placement(config.pools, engines), config.keys, config.policy, node)


def configuration(live: Live) -> LiveConfig:
    """And back."""
    engines = tuple(_engine(engine) for engine in live.placement.engines)
    return LiveConfig(live.placement.pools, engines, live.keys, live.policy)


def view(record: ConfigRecord, config: LiveConfig, file_of: str) -> ConfigRevision:
    """A record for people; `file_of` names the control plane whose file it stands for."""
    is_file = record.config is None
    return ConfigRevision(
        revision=record.revision,
        at_ms=round(record.at_s * 1000),
        actor=record.actor,
        reason=record.reason,
        is_file=is_file,
        file_of=file_of if is_file else "",
        pools=len(config.pools),
        engines=len(config.engines),
        keys=len(config.keys),
    )


def faults(config: LiveConfig, node: str, replicas: Iterable[Replica]) -> list[str]:
    """Why this must not be in effect; empty if it may. At most FAULTS_SHOWN."""
    found = list(itertools.islice(_own_faults(config), FAULTS_SHOWN))
    return found or _routing_faults(effective(config, node), replicas)[:FAULTS_SHOWN]


def _own_faults(config: LiveConfig) -> Iterator[str]:
    sizes = ((config.pools, POOLS_LIMIT, "pools"), (config.engines, REPLICA_LIMIT, "engines"))
    for items, limit, what in (*sizes, (config.keys, KEYS_LIMIT, "keys")):
        if len(items) > limit:
            yield f"{len(items)} {what}: at most {limit}"
    pools = {pool.name for pool in config.pools}
    for pool in config.pools:
        names = (pool.name, *pool.aliases)
        yield from (f"pool {clip(pool.name)!r}: a name is empty" for name in names if not name)
        if len(names) > MODEL_NAMES_LIMIT:
            yield f"pool {clip(pool.name)!r}: {len(names)} names: at most {MODEL_NAMES_LIMIT}"
    for engine in config.engines:
        yield from filter(None, (url_fault(engine.url), engine.name and name_fault(engine.name)))
        if engine.pool and engine.pool not in pools:
            yield f"engine {clip(engine.url)}: there is no pool {clip(engine.pool)!r}"
    for key in config.keys:
        if len(key.sha256) != SHA256_BYTES or not key.name or len(key.models) > NAMES_LIMIT:
            yield f"key {clip(key.name)!r}: wants a name, a SHA-256, and at most 256 models"
    yield from _twice(
        "model name", (n for pool in config.pools for n in (pool.name, *pool.aliases))
    )
    yield from _twice("engine URL", (engine.url for engine in config.engines))
    yield from _twice("engine name", (engine.name for engine in config.engines if engine.name))
    yield from _twice("key name", (key.name for key in config.keys))
    policy = config.policy
    limits = (policy.queue_limit, policy.queue_wait_ms, policy.head_hold_ms)
    if 0 in (*limits, policy.idle_timeout_ms, policy.total_timeout_ms, policy.body_limit_bytes):
        yield "edge: a limit is 0"


def _routing_faults(live: Live, replicas: Iterable[Replica]) -> list[str]:
    """What would be wrong with what edges were pushed, were this in effect now."""
    moved = []
    for replica in replicas:
        if replica.route is not None:
            models = replica.facts.served_models if replica.facts else ()
            pool, _ = live.placement.place(replica.name, replica.url, models)
            route = replace(replica.route, pool=pool)
            moved.append(Replica(replica.name, replica.url, 0.0, route=route))
    return snapshot.faults(snapshot.build(moved, live.placement.pools, live.keys, live.policy))


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    return (f"{what} {clip(name)} is there twice" for name, n in Counter(names).items() if n > 1)


def _engine(engine: EngineSpec) -> ConfiguredEngine:
    name = engine.name if engine.named else ""
    return ConfiguredEngine(engine.url, engine.pool, name, engine.served_as)

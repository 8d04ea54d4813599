"""What of the file changes while everything runs, what needs a restart, and each as plain data.

Rules: pools, where engines belong, keys and the edges' limits are live: one value that is applied
whole; everything else is a process's own and read at its start (RESTARTS says whose). A key is a
hash from here on. `outline` names every setting by a path, so that two configurations compare.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from trimtab.model import ApiKey, EdgePolicy, Pool
from trimtab.runtime import config as file
from trimtab.runtime import shapes
from trimtab.views import ConfigSetting, ConfiguredEngine, LiveConfig

HIDDEN = "***"
EVERYTHING = "everything"
EDGES_RELOAD = "edges, or a reload"
# Which processes read a setting at their start only; what is not here is live.
RESTARTS: Mapping[type[msgspec.Struct], Mapping[str, str]] = {
    file.Config: {
        "fleet": "control planes",
        "node": EVERYTHING,
        "listen": "edges",
        "admin": "edges",
        "controlplane": EVERYTHING,
        "tls": EVERYTHING,
        "insecure": "control planes",
        "controlplane_metrics": "control planes",
        "state_dir": EVERYTHING,
        "etcd": "control planes",
        "report_period_s": "agents",
        "upstream_key": "agents, edges",
        "otlp": "edges, control planes",
        "remediation": "control planes",
    },
    file.Pool: {"fallback": "edges"},
    file.Engine: {"max_num_seqs": "agents", "unit": "agents"},
    file.EdgeLimits: {
        "drain_s": EDGES_RELOAD,
        "extra_paths": EDGES_RELOAD,
        "tls": "edges",
        "route_headers": EDGES_RELOAD,
        "cors_origins": EDGES_RELOAD,
        "access_log": EDGES_RELOAD,
        "workers": "edges",
    },
}
Outline = dict[str, dict[str, Any]]
"""Fields by the path of what they belong to: `pools.big`, `engines.URL`, `keys.NAME`, `edge`."""


def live(base: file.Config) -> LiveConfig:
    """The live part of a file; raises ConfigError when a key's text can't be found."""
    pooled = [(engine, pool.name) for pool in base.pools for engine in pool.engines]
    return LiveConfig(
        pools=tuple(_pool(pool) for pool in base.pools),
        engines=tuple(
            ConfiguredEngine(engine.url.rstrip("/"), pool, engine.name, engine.served_as)
            for engine, pool in [*pooled, *((engine, "") for engine in base.engines)]
        ),
        keys=tuple(
            ApiKey(
                _sha256(key),
                key.name,
                models=key.models or (),
                fallback=key.fallback,
                expires_ms=shapes.moment_ms(key.expires) if key.expires else 0,
            )
            for key in base.keys
        ),
        policy=_policy(base.edge),
    )


def document(config: LiveConfig) -> dict[str, Any]:
    """The same in the file's words, keys hidden."""
    engines: dict[str, list[dict[str, Any]]] = {}
    for engine in config.engines:
        shown = {"url": engine.url, "name": engine.name, "served_as": engine.served_as}
        engines.setdefault(engine.pool, []).append({k: v for k, v in shown.items() if v})
    pools = [_pool_words(pool, engines.get(pool.name, [])) for pool in config.pools]
    keys = [_key_words(key) for key in config.keys]
    parts = {"pools": pools, "engines": engines.get("", []), "keys": keys}
    limits = _limits(config.policy)
    return {k: v for k, v in parts.items() if v} | ({"edge": limits} if limits else {})


def outline(config: LiveConfig) -> Outline:
    """Every live setting by its path; beside the limits, what equals its default is left out."""
    found: Outline = {f"pools.{pool.name}": _pool_words(pool, []) for pool in config.pools}
    for engine in config.engines:
        fields = {"pool": engine.pool, "name": engine.name, "served_as": engine.served_as}
        found[f"engines.{engine.url}"] = {k: v for k, v in fields.items() if v}
    for key in config.keys:
        found[f"keys.{key.name}"] = _key_words(key) | {"sha256": key.sha256.hex()}
    return found | {"edge": defaults() | _limits(config.policy)}


def defaults() -> dict[str, Any]:
    """The limits that hold when nothing is said."""
    base, kept = file.EdgeLimits(), RESTARTS[file.EdgeLimits]
    return {name: getattr(base, name) for name in base.__struct_fields__ if name not in kept}


def settings(base: file.Config) -> tuple[ConfigSetting, ...]:
    """What a file says beside its live part; secrets are references."""
    return tuple(ConfigSetting(path, json.dumps(value)) for path, value, _ in _static(base))


def restarts(base: file.Config) -> dict[str, str]:
    """Whom each of those settings is for, by its path."""
    return {path: who for path, _, who in _static(base)}


def held(before: file.Config, now: file.Config, part: str) -> list[str]:
    """What differs, is read at the start of this part (`edges`), and not again by a reload."""
    values = [{path: (value, who) for path, value, who in _static(base)} for base in (before, now)]
    paths = {**values[0], **values[1]}
    return sorted(
        path
        for path, (_, who) in paths.items()
        if values[0].get(path) != values[1].get(path)
        and (who == EVERYTHING or part in who.split(", "))
        and not who.endswith("a reload")
    )


def _static(base: file.Config) -> Iterator[tuple[str, Any, str]]:
    yield from _of(base, "")
    yield from _of(base.edge, "edge.")
    for pool in base.pools:
        yield from _of(pool, f"pools.{pool.name}.")
    for engine in [*base.engines, *(engine for pool in base.pools for engine in pool.engines)]:
        yield from _of(engine, f"engines.{engine.url.rstrip('/')}.")


def _of(section: msgspec.Struct, path: str) -> Iterator[tuple[str, Any, str]]:
    said = msgspec.to_builtins(section)
    for name, who in RESTARTS[type(section)].items():
        if name in said:
            yield path + name, said[name], who


def _pool(pool: file.Pool) -> Pool:
    return Pool(
        name=pool.name,
        aliases=pool.aliases,
        no_failover=not pool.failover,
        request_timeout_ms=round(1000 * (pool.request_timeout_s or 0.0)),
        idle_timeout_ms=round(1000 * (pool.idle_timeout_s or 0.0)),
        hedge=pool.hedge,
    )


def _pool_words(pool: Pool, engines: list[dict[str, Any]]) -> dict[str, Any]:
    words = file.Pool(
        name=pool.name,
        aliases=pool.aliases,
        failover=not pool.no_failover,
        request_timeout_s=pool.request_timeout_ms / 1000 or None,
        idle_timeout_s=pool.idle_timeout_ms / 1000 or None,
        hedge=pool.hedge,
    )
    said: dict[str, Any] = msgspec.to_builtins(words)
    return said | ({"engines": engines} if engines else {})


def _key_words(key: ApiKey) -> dict[str, Any]:
    models = {"models": list(key.models)} if key.models else {}
    fallback = {"fallback": True} if key.fallback else {}
    expires = {"expires": shapes.moment(key.expires_ms)} if key.expires_ms else {}
    return {"name": key.name, "sha256": HIDDEN, **models, **fallback, **expires}


def _sha256(key: file.Key) -> bytes:
    if key.key is None:
        return bytes.fromhex(key.sha256)
    return hashlib.sha256(file.resolve(key.key, f"keys.{key.name}.key").encode()).digest()


def _policy(limits: file.EdgeLimits) -> EdgePolicy:
    return EdgePolicy(
        queue_limit=limits.queue_limit,
        queue_wait_ms=round(limits.queue_wait_s * 1000),
        head_hold_ms=round(limits.head_hold_s * 1000),
        idle_timeout_ms=round(limits.idle_timeout_s * 1000),
        total_timeout_ms=round(limits.total_timeout_s * 1000),
        body_limit_bytes=limits.body_limit_bytes,
    )


def _limits(policy: EdgePolicy) -> dict[str, Any]:
    said = {
        "queue_limit": policy.queue_limit,
        "queue_wait_s": policy.queue_wait_ms / 1000,
        "head_hold_s": policy.head_hold_ms / 1000,
        "idle_timeout_s": policy.idle_timeout_ms / 1000,
        "total_timeout_s": policy.total_timeout_ms / 1000,
        "body_limit_bytes": policy.body_limit_bytes,
    }
    usual = defaults()
    return {name: value for name, value in said.items() if value != usual[name]}

"""What the control plane needs to know to start: the configuration file, overridden by flags.

Rules: keys become SHA-256 here and their text goes no further; an engine without a name gets
the one that an agent of this node gives it, <node>-<port>.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from controlplane.core.placement import EngineSpec
from trimtab.model import ApiKey, EdgePolicy, Pool
from trimtab.runtime import config as file
from trimtab.runtime.service import ConfigError


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """Where to listen, what to keep, what edges are told."""

    fleet: str
    name: str
    listen: str
    store: pathlib.Path
    report_period_s: float
    pools: tuple[Pool, ...]
    engines: tuple[EngineSpec, ...]
    keys: tuple[ApiKey, ...]
    policy: EdgePolicy


def from_args(argv: Sequence[str] | None = None) -> ControlConfig:
    """Read flags and file; raises ConfigError."""
    parser = argparse.ArgumentParser(
        prog="trimtab-controlplane", description="Decides where requests may go."
    )
    parser.add_argument("--config", type=pathlib.Path, help="configuration file")
    parser.add_argument("--listen", help="unix:/path or HOST:PORT for agents, edges and ctl")
    parser.add_argument("--store", type=pathlib.Path, help="file that holds what must last")
    parser.add_argument("--name", help="this control plane's name; default the node's")
    args = parser.parse_args(argv)
    base = file.load(args.config) if args.config else file.Config()
    node = base.node or socket.gethostname()
    state_dir = pathlib.Path(base.state_dir) if base.state_dir else None
    listen = args.listen or base.controlplane
    store = args.store or (state_dir / "trimtab.db" if state_dir else None)
    if not listen:
        raise ConfigError("nowhere to listen: --listen unix:/path or HOST:PORT")
    if store is None:
        raise ConfigError("nowhere to keep state: --store FILE, or state_dir in the file")
    return ControlConfig(
        fleet=base.fleet,
        name=args.name or node,
        listen=listen,
        store=store,
        report_period_s=base.report_period_s,
        pools=tuple(Pool(pool.name, pool.aliases, not pool.failover) for pool in base.pools),
        engines=tuple(_engines(base, node)),
        keys=tuple(ApiKey(_sha256(key), key.name) for key in base.keys),
        policy=_policy(base.edge),
    )


def _engines(base: file.Config, node: str) -> Iterator[EngineSpec]:
    for pool in base.pools:
        for engine in pool.engines:
            yield _engine(engine, node, pool.name)
    for engine in base.engines:
        yield _engine(engine, node, "")


def _engine(engine: file.Engine, node: str, pool: str) -> EngineSpec:
    url = engine.url.rstrip("/")
    name = engine.name or f"{node}-{urlsplit(url).port}"
    return EngineSpec(name, url, pool, engine.served_as, named=bool(engine.name))


def _sha256(key: file.Key) -> bytes:
    if key.key is None:
        return bytes.fromhex(key.sha256)
    return hashlib.sha256(file.resolve(key.key).encode()).digest()


def _policy(limits: file.EdgeLimits) -> EdgePolicy:
    return EdgePolicy(
        queue_limit=limits.queue_limit,
        queue_wait_ms=round(limits.queue_wait_s * 1000),
        head_hold_ms=round(limits.head_hold_s * 1000),
        idle_timeout_ms=round(limits.idle_timeout_s * 1000),
        total_timeout_ms=round(limits.total_timeout_s * 1000),
        body_limit_bytes=limits.body_limit_bytes,
    )

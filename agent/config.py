"""What an agent needs to know to start: the configuration file, overridden by flags."""

from __future__ import annotations

import argparse
import os
import pathlib
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from trimtab.runtime import config as file
from trimtab.runtime import shapes, tls
from trimtab.runtime.certificates import Role
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tls import Identity

ENGINES_LIMIT = 64
SEQS_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One engine to watch."""

    replica: str
    url: str
    max_num_seqs: int | None = None
    """Requests it runs at once; None to find out."""
    unit: str = ""
    """The service that it is, if that may be restarted."""

    @property
    def host(self) -> str:
        """The URL's host."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The URL's port."""
        return urlsplit(self.url).port or 0


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Whom to watch, whom to tell."""

    node: str
    controlplane: str
    engines: tuple[EngineConfig, ...]
    report_period_s: float = 0.5
    upstream_key: str = ""
    identity: Identity | None = None
    socket: str = ""
    """Where `trimtab-agent drain` asks; empty: nowhere."""
    base: file.Config = field(default_factory=file.Config)
    """The file itself."""
    argv: tuple[str, ...] = ()
    """Whence all this; a reload reads it again."""


def from_args(argv: Sequence[str] | None = None) -> AgentConfig:
    """Read flags and file; raises ConfigError."""
    parser = argparse.ArgumentParser(
        prog="trimtab-agent",
        description="Watches a node's engines. trimtab-agent drain REPLICA asks the one that runs.",
    )
    parser.add_argument("--config", type=pathlib.Path, help="configuration file")
    parser.add_argument("--controlplane", help="gRPC targets: unix:/path or host:port, a,b,c")
    parser.add_argument("--node", help="this machine's name; default its host name")
    parser.add_argument(
        "--engine", action="append", metavar="URL", help="watch this one instead of the file's"
    )
    parser.add_argument("--tls-dir", help="certificates of `trimtab join`")
    parser.add_argument(
        "--socket", default="", metavar="PATH", help="where `trimtab-agent drain REPLICA` asks"
    )
    argv = tuple(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    base = file.load(args.config) if args.config else file.Config()
    target = args.controlplane or base.controlplane
    if not target:
        raise ConfigError("controlplane is not set: --controlplane unix:/path or host:port")
    node = args.node or base.node
    identity = tls.find(args.tls_dir or base.tls.dir, Role.AGENT, node)
    node = node or (identity.peer.name if identity else socket.gethostname())
    return AgentConfig(
        node=node,
        controlplane=target,
        engines=_engines(node, _flagged(args.engine) if args.engine else _listed(base)),
        report_period_s=base.report_period_s,
        upstream_key=_upstream_key(base),
        identity=identity,
        socket=args.socket,
        base=base,
        argv=argv,
    )


def _flagged(urls: Sequence[str]) -> list[file.Engine]:
    for url in urls:
        if problem := shapes.url_problem(url):
            raise ConfigError(f"--engine: {problem}")
    return [file.Engine(url=url) for url in urls]


def _listed(base: file.Config) -> list[file.Engine]:
    return [*base.engines, *(engine for pool in base.pools for engine in pool.engines)]


def _engines(node: str, listed: Sequence[file.Engine]) -> tuple[EngineConfig, ...]:
    if not 0 < len(listed) <= ENGINES_LIMIT:
        raise ConfigError(f"{len(listed)} engines to watch; 1 to {ENGINES_LIMIT}: --engine URL")
    engines: dict[str, EngineConfig] = {}
    for item in listed:
        url = item.url.rstrip("/")
        replica = item.name or f"{node}-{urlsplit(url).port}"
        if replica in engines:
            raise ConfigError(f"two engines are called {replica}: {engines[replica].url} and {url}")
        if item.max_num_seqs is not None and item.max_num_seqs > SEQS_LIMIT:
            raise ConfigError(f"{replica}: max_num_seqs {item.max_num_seqs} is above {SEQS_LIMIT}")
        engines[replica] = EngineConfig(replica, url, item.max_num_seqs, item.unit)
    return tuple(engines.values())


def _upstream_key(base: file.Config) -> str:
    key = os.environ.get(file.UPSTREAM_KEY_ENV, "").strip()
    if not key and base.upstream_key is not None:
        key = file.resolve(base.upstream_key, "upstream_key")
    if not (key.isascii() and (key.isprintable() or not key)):
        raise ConfigError("the engines' API key has characters that no HTTP header may have")
    return key

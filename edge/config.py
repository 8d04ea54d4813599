"""What an edge needs to know to start: the configuration file, overridden by flags."""

from __future__ import annotations

import argparse
import os
import pathlib
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge.access import AccessSettings
from edge.answers import AnswerHeaders
from edge.core import surface
from edge.core.access import Which
from edge.core.outside import Target
from edge.ledger import Workers
from trimtab.runtime import config as file
from trimtab.runtime import otlp_settings, tls
from trimtab.runtime.certificates import WORKER_MARK, Role
from trimtab.runtime.otlp_settings import Otlp
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tls import Identity


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Where to listen, whom to follow."""

    name: str
    host: str
    port: int
    admin_host: str
    admin_port: int
    controlplane: str
    state_dir: pathlib.Path | None
    upstream_key: str = ""
    identity: Identity | None = None
    drain_s: float = 10.0
    tls: file.Certificate | None = None
    fallbacks: Mapping[str, Target] = field(default_factory=dict)
    """By pool."""
    headers: AnswerHeaders = field(default_factory=AnswerHeaders)
    shares_port: bool = False
    workers: Workers = field(default_factory=Workers)
    """All that share the port; empty when it is the only one, or has no place for their sockets."""
    extra_paths: tuple[str, ...] = ()
    otlp: Otlp | None = None
    access: AccessSettings = field(default_factory=AccessSettings)
    base: file.Config = field(default_factory=file.Config)
    """The file itself."""
    argv: tuple[str, ...] = ()
    """Whence all this; a reload reads it again."""

    @property
    def admin_address(self) -> tuple[str, int]:
        """Where operators look."""
        return self.admin_host, self.admin_port

    @property
    def listen_url(self) -> str:
        """What clients use."""
        host = "127.0.0.1" if self.host in {"", "0.0.0.0", "::"} else self.host  # noqa: S104
        return f"http{'s' if self.tls else ''}://{host}:{self.port}"


def from_args(argv: Sequence[str] | None = None) -> EdgeConfig:
    """Read flags and file; raises ConfigError."""
    parser = argparse.ArgumentParser(prog="trimtab-edge", description="The OpenAI endpoint.")
    parser.add_argument("--config", type=pathlib.Path, help="configuration file")
    parser.add_argument("--controlplane", help="gRPC targets: unix:/path or host:port, a,b,c")
    parser.add_argument("--listen", help="HOST:PORT for clients")
    parser.add_argument(
        "--admin", help="HOST:PORT for the status page, /metrics, /decisions, /readyz"
    )
    parser.add_argument("--state", type=pathlib.Path, help="where the last snapshot is kept")
    parser.add_argument("--name", help="unique in the fleet; default <node>-<port>")
    parser.add_argument("--tls-dir", help="certificates of `trimtab join`; they also say the name")
    parser.add_argument(
        "--worker",
        type=int,
        choices=range(1, file.WORKERS_MAX + 1),
        metavar="N",
        help="the N-th of several that share --listen; --admin is N - 1 ports on",
    )
    argv = tuple(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    number = args.worker or 1
    base = file.load(args.config) if args.config else file.Config()
    host, port = host_port(args.listen or base.listen)
    admin_host, admin_port = host_port(args.admin or base.admin)
    target = args.controlplane or base.controlplane
    if not target:
        raise ConfigError("controlplane is not set: --controlplane unix:/path or host:port")
    state = args.state or (pathlib.Path(base.state_dir) if base.state_dir else None)
    identity = tls.find(args.tls_dir or base.tls.dir, Role.EDGE, args.name or "")
    named = identity.peer.name if identity else f"{base.node or socket.gethostname()}-{port}"
    name = (args.name or named) + (f"{WORKER_MARK}{number}" if number > 1 else "")
    return EdgeConfig(
        name=name,
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port + number - 1 if admin_port else 0,
        controlplane=target,
        state_dir=state,
        upstream_key=_upstream_key(base),
        identity=identity,
        drain_s=base.edge.drain_s,
        tls=base.edge.tls,
        fallbacks={
            pool.name: _target(pool.name, pool.fallback)
            for pool in base.pools
            if pool.fallback is not None
        },
        headers=AnswerHeaders(base.edge.route_headers, frozenset(base.edge.cors_origins)),
        shares_port=args.worker is not None,
        workers=_workers(base.edge.workers, number, state, port),
        extra_paths=_extra_paths(base),
        otlp=otlp_settings.find(base.otlp, os.environ, "edge", name),
        access=_access(base.edge.access_log),
        base=base,
        argv=argv,
    )


def _access(section: file.AccessLog) -> AccessSettings:
    return AccessSettings(Which(section.lines), section.file, section.client_address)


def _workers(count: int, number: int, state: pathlib.Path | None, port: int) -> Workers:
    if state is None or not 1 < count >= number:
        return Workers()
    paths = tuple(state / f"{port}-{n}.sock" for n in range(1, count + 1))
    return Workers(paths, number - 1)


def _target(pool: str, there: file.Fallback) -> Target:
    key = file.resolve(there.key, f"pools.{pool}.fallback.key")
    return Target(there.url, there.model, there.max_requests, key)


def _extra_paths(base: file.Config) -> tuple[str, ...]:
    for path in base.edge.extra_paths:
        if surface.never(path):
            raise ConfigError(
                f"edge.extra_paths: {path} steers engines or shows their inside: never served"
            )
    return base.edge.extra_paths


def _upstream_key(base: file.Config) -> str:
    key = os.environ.get(file.UPSTREAM_KEY_ENV, "")
    return key or (file.resolve(base.upstream_key, "upstream_key") if base.upstream_key else "")


def host_port(text: str) -> tuple[str, int]:
    """Split HOST:PORT; raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{text!r} is not HOST:PORT, like 127.0.0.1:4000")
    return host.strip("[]"), int(port)

"""What the control plane needs to know to start: the configuration file, overridden by flags.

Rules: keys become SHA-256 here and their text goes no further; an engine without a name gets
the one that an agent of this node gives it, <node>-<port>.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import pathlib
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from controlplane.core.placement import EngineSpec, spec_of
from controlplane.store.etcd_client import Access
from trimtab.model import ApiKey, EdgePolicy, Pool
from trimtab.policy.remedy import OFF, Rules
from trimtab.runtime import config as file
from trimtab.runtime import live_config, otlp_settings, shapes
from trimtab.runtime.otlp_settings import Otlp
from trimtab.runtime.service import ConfigError
from trimtab.views import ConfigSetting


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """A corner of an etcd cluster."""

    access: Access
    prefix: str


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Where certificates are, what is in them, where nodes join."""

    directory: pathlib.Path
    fleet: str
    name: str
    names: tuple[str, ...]
    life_s: float
    enroll: str
    """Where to listen for those who join; empty: nobody joins."""
    enroll_url: str
    """The same as others reach it."""


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """Where to listen, what to keep, what edges are told; state is in `etcd`, else in `store`."""

    fleet: str
    name: str
    listen: str
    advertise: str
    store: pathlib.Path | None
    report_period_s: float
    pools: tuple[Pool, ...]
    engines: tuple[EngineSpec, ...]
    keys: tuple[ApiKey, ...]
    policy: EdgePolicy
    etcd: EtcdConfig | None = None
    admin_socket: str = ""
    """Where root of this host needs no certificate; empty when `listen` is such a socket."""
    tls: TlsConfig | None = None
    metrics: str = ""
    """HOST:PORT for the status page and /metrics; empty: none."""
    node: str = ""
    """This machine's name; after it engines without a name are called."""
    otlp: Otlp | None = None
    """Where else metrics go."""
    remediation: Rules = OFF
    settings: tuple[ConfigSetting, ...] = ()
    """What else the file says."""
    base: file.Config = field(default_factory=file.Config)
    """The file itself."""
    argv: tuple[str, ...] = ()
    """Whence all this; a reload reads it again."""


def from_args(argv: Sequence[str] | None = None) -> ControlConfig:
    """Read flags and file; raises ConfigError."""
    parser = argparse.ArgumentParser(
        prog="trimtab-controlplane", description="Decides where requests may go."
    )
    parser.add_argument("--config", type=pathlib.Path, help="configuration file")
    parser.add_argument("--listen", help="unix:/path or HOST:PORT for agents, edges and ctl")
    parser.add_argument("--advertise", help="gRPC target where peers reach it; default --listen")
    parser.add_argument("--store", type=pathlib.Path, help="file that holds what must last")
    parser.add_argument(
        "--etcd",
        metavar="URL[,URL]",
        help="etcd endpoints that hold it instead; see etcd in the file",
    )
    parser.add_argument(
        "--admin-socket",
        metavar="PATH",
        help="beside a TCP address; default STATE_DIR/control.sock",
    )
    parser.add_argument("--tls-dir", help="certificates, ca.key among them; see docs/security.md")
    parser.add_argument("--name", help="this control plane's name; default the node's")
    parser.add_argument(
        "--metrics", help="HOST:PORT for the status page and /metrics; default none"
    )
    argv = tuple(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    base = file.load(args.config) if args.config else file.Config()
    node = base.node or socket.gethostname()
    state_dir = pathlib.Path(base.state_dir) if base.state_dir else None
    listen = args.listen or base.controlplane
    store = args.store or (state_dir / "trimtab.db" if state_dir else None)
    if not listen:
        raise ConfigError("nowhere to listen: --listen unix:/path or HOST:PORT")
    if "," in listen:
        raise ConfigError(f"controlplane names several ({listen}): say --listen which is this one")
    etcd = _etcd(base.etcd, args.etcd)
    if store is None and etcd is None:
        raise ConfigError(
            "nowhere to keep state: --store FILE or --etcd URL, or state_dir or etcd in the file"
        )
    tls = _tls(base, args.tls_dir or base.tls.dir, args.name or node, listen)
    _refuse_open(listen, secure=tls is not None or base.insecure)
    live = live_config.live(base)
    metrics = args.metrics or base.controlplane_metrics or ""
    if metrics and (problem := shapes.address_problem(metrics)):
        raise ConfigError(f"--metrics: {problem}")
    return ControlConfig(
        fleet=base.fleet,
        name=args.name or node,
        listen=listen,
        advertise=args.advertise or listen,
        store=store,
        report_period_s=base.report_period_s,
        pools=live.pools,
        engines=tuple(spec_of(engine, node) for engine in live.engines),
        keys=live.keys,
        policy=live.policy,
        etcd=etcd,
        admin_socket=_admin_socket(args.admin_socket, listen, state_dir, store),
        tls=tls,
        metrics=metrics,
        node=node,
        otlp=otlp_settings.find(base.otlp, os.environ, "controlplane", args.name or node),
        remediation=_rules(base.remediation),
        settings=live_config.settings(base),
        base=base,
        argv=argv,
    )


def _rules(said: file.Remediation) -> Rules:
    return Rules(said.restarts_per_hour, said.floor, said.after_s)


def _admin_socket(
    wanted: str | None, listen: str, state_dir: pathlib.Path | None, store: pathlib.Path | None
) -> str:
    """The socket for root of this host, where it is needed and there is a place for it."""
    if listen.startswith("unix:"):
        return ""
    place = state_dir or (store.parent if store else None)
    path = wanted or (f"{place}/control.sock" if place else "")
    return f"unix:{path}" if path else ""


def _etcd(section: file.Etcd | None, flag: str | None) -> EtcdConfig | None:
    """The file's section, its endpoints overridden by the flag."""
    if flag:
        endpoints = tuple(flag.split(","))
        for url in endpoints:
            if problem := shapes.etcd_problem(url):
                raise ConfigError(f"--etcd: {problem}")
        try:
            rest = section or file.Etcd(endpoints=endpoints)
            section = msgspec.structs.replace(rest, endpoints=endpoints)
        except ValueError as error:
            raise ConfigError(f"--etcd: {error}") from None
    if section is None:
        return None
    ca, cert, key = (_pem(path) for path in (section.ca, section.cert, section.key))
    password = file.resolve(section.password, "etcd.password") if section.password else ""
    access = Access(
        tuple(url.rstrip("/") for url in section.endpoints),
        section.username,
        password,
        ca,
        cert,
        key,
        section.allow_unsafe_version,
    )
    return EtcdConfig(access, section.prefix)


def _pem(path: str) -> bytes | None:
    try:
        return pathlib.Path(path).read_bytes() if path else None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _tls(base: file.Config, directory: str, name: str, listen: str) -> TlsConfig | None:
    if not directory:
        return None
    host = base.tls.names[0] if base.tls.names else listen.rpartition(":")[0]
    if host in {"0.0.0.0", "[::]"}:  # noqa: S104 - every address here, none of them there
        host = socket.gethostname()
    port = base.tls.enroll.rpartition(":")[2]
    return TlsConfig(
        directory=pathlib.Path(directory),
        fleet=base.fleet,
        name=name,
        names=base.tls.names,
        life_s=base.tls.certificate_days * 86_400,
        enroll=base.tls.enroll,
        enroll_url=f"{host}:{port}" if port else "",
    )


def _refuse_open(listen: str, *, secure: bool) -> None:
    host = listen.rpartition(":")[0].strip("[]")
    if not secure and not listen.startswith("unix:") and not _is_loopback(host):
        raise ConfigError(
            f"on {listen} without TLS anybody could steer the fleet: set tls.dir (see "
            "docs/security.md), listen on loopback or unix:/path, or say insecure: true in the file"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Three nodes and two edges as processes of this machine, as an admin would set them up.

Each node has an etcd, a control plane, an agent and a (simulated) engine. Rules: what runs here is
what runs on three machines, but for the addresses (deploy/three-nodes); every process can be
killed, frozen and started again by its name. With a network (bench/cluster/net) parts are on HOSTS,
where what is between any two can be cut; else all are on loopback.
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from urllib.error import URLError
from urllib.request import urlopen

import msgspec

from bench.cluster.net import Net
from bench.cluster.parts import Part
from bench.cluster.ports import free
from tests.fakes import etcd
from trimtab.runtime import clock
from trimtab.runtime import config as file

READY_S = 60.0
POLL_S = 0.1
NODES = ("1", "2", "3")
STATE, GPU, EDGE = "state", "gpu", "edge"  # etcd and control plane; agent and engine; edge
HOST_OF = {"etcd": STATE, "cp": STATE, "agent": GPU, "engine": GPU, "edge": EDGE}
STATES = tuple(STATE + node for node in NODES)
HOSTS = (*STATES, *(GPU + node for node in NODES), "edge1", "edge2")
KEY = "sk-three-nodes-0123456789"
MODEL = "demo"
SLOTS = 16
LOOPBACK = "127.0.0.1"


class NotReadyError(Exception):
    """A part did not come up in time; says which, and its last words."""


class Cluster:
    """The fleet; `parts` by name: etcd1, cp1, agent1, engine1, ..., edge1, edge2."""

    def __init__(
        self, root: pathlib.Path, edges: int = 2, net: Net | None = None, engine: Sequence[str] = ()
    ) -> None:
        """`engine` are more flags for the simulated engines."""
        self.root = root
        self.parts: dict[str, Part] = {}
        self._net = net
        self._engine_flags = engine
        ports = iter(free(5 * len(NODES) + 2 * edges))
        self._etcd = {node: (next(ports), next(ports)) for node in NODES}
        self._cp = {node: (next(ports), next(ports)) for node in NODES}
        self._engine = {node: next(ports) for node in NODES}
        self._edge = {str(n + 1): (next(ports), next(ports)) for n in range(edges)}

    @property
    def endpoints(self) -> list[str]:
        """Base URLs for clients, one an edge."""
        return [f"http://{self._at(EDGE, e)}:{port}/v1" for e, (port, _) in self._edge.items()]

    @property
    def edge_admins(self) -> list[str]:
        """Where each edge's metrics are."""
        return [f"http://{self._at(EDGE, e)}:{admin}" for e, (_, admin) in self._edge.items()]

    @property
    def ctl_flags(self) -> tuple[str, ...]:
        """What `trimtab-ctl` needs anywhere: all control planes, and an admin's certificate."""
        return ("--server", self._controlplanes, "--tls-dir", str(self.root / "tls" / "admin"))

    def start(self) -> None:
        """Start everything; returns when requests are served."""
        for folder in ("logs", "etcd", "tls", "state"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "key").write_text(KEY)
        for node in NODES:
            self._run(f"etcd{node}", self._etcd_command(node))
        self._until("etcd1", self._etcd_is_well)
        self._start_controlplanes()
        self._join("admin", "admin", "admin")
        for node in NODES:
            self._start_node(node)
        for edge in self._edge:
            self._start_edge(edge)
        self.settle()

    def close(self) -> None:
        """End everything, the last one first."""
        for part in reversed(self.parts.values()):
            part.end()

    def settle(self) -> None:
        """Wait until every engine is in rotation at every edge."""
        for edge, admin in zip(self._edge, self.edge_admins, strict=True):
            self._until(f"edge{edge}", lambda admin=admin: _open_replicas(admin) == len(NODES))  # type: ignore[misc]

    def resolve(self, names: Sequence[str]) -> list[str]:
        """The parts' own names: `leader` and `follower` are looked up."""
        if not {"leader", "follower"} & set(names):
            return list(names)
        leader = self.leader()
        follower = next(f"cp{node}" for node in NODES if f"cp{node}" != leader)
        return [{"leader": leader, "follower": follower}.get(name, name) for name in names]

    def leader(self) -> str:
        """The name of the control plane that leads."""
        found = re.search(r"\bleader (\w+)", self.ctl("status"))
        return found[1] if found else ""

    def cut(self, part: str, hosts: Sequence[str]) -> None:
        """Let no packet pass between a part's host and these."""
        assert self._net, "parts on loopback cannot be cut off"
        own = _host(self.resolve([part])[0])
        self._net.cut([own], [host for host in hosts if host != own])

    def heal(self) -> None:
        """Let all packets pass again."""
        if self._net:
            self._net.heal()

    def ctl(self, *words: str) -> str:
        """What `trimtab-ctl` prints."""
        return _said(_module("ctl", *self.ctl_flags, *words))

    @property
    def _controlplanes(self) -> str:
        return ",".join(f"{self._at(STATE, n)}:{port}" for n, (port, _) in self._cp.items())

    def _at(self, kind: str, number: str) -> str:
        """The address of the host so-and-so."""
        return self._net.address(kind + number) if self._net else LOOPBACK

    def _start_controlplanes(self) -> None:
        """The first makes the fleet's authority; the others get a copy of it."""
        first, *others = NODES
        self._start_controlplane(first)
        made = self.root / "tls" / f"cp{first}"
        self._until(f"cp{first}", (self.root / "state" / first / "control.sock").exists)
        for node in others:
            folder = self.root / "tls" / f"cp{node}"
            folder.mkdir()
            for name in ("ca.crt", "ca.key"):
                _ = shutil.copy(made / name, folder)
            self._start_controlplane(node)

    def _start_controlplane(self, node: str) -> None:
        (self.root / "state" / node).mkdir()
        config = self._write_config(node)
        listen = f"{self._at(STATE, node)}:{self._cp[node][0]}"
        own = ("--name", f"cp{node}", "--listen", listen)
        self._run(f"cp{node}", _module("controlplane", "--config", config, *own))

    def _start_node(self, node: str) -> None:
        flags = ("--served-model-name", MODEL, "--max-num-seqs", str(SLOTS))
        port = str(self._engine[node])
        listen = ("--host", self._at(GPU, node), "--port", port)
        engine = _module("sim.engine_http", *listen, *flags, *self._engine_flags)
        self._run(f"engine{node}", engine)
        tls = self._join("agent", f"node{node}", f"agent{node}")
        config = ("--config", str(self.root / f"node{node}.json"))
        self._run(f"agent{node}", _module("agent", *config, "--tls-dir", tls))

    def _start_edge(self, edge: str) -> None:
        port, admin = self._edge[edge]
        at = self._at(EDGE, edge)
        listen = ("--listen", f"{at}:{port}", "--admin", f"{at}:{admin}")
        tls = self._join("edge", f"edge{edge}", f"edge{edge}")
        own = ("--tls-dir", tls, "--state", str(self.root / "state"))
        config = ("--config", str(self.root / "node1.json"))
        self._run(f"edge{edge}", _module("edge", *config, *listen, *own))

    def _join(self, role: str, name: str, folder: str) -> str:
        """Get a certificate as an admin would: a token at a control plane, pasted on the node."""
        socket = f"unix:{self.root}/state/{NODES[0]}/control.sock"
        create = ("node", "token", "create", "--role", role, "--name", name)
        line = _said(_module("ctl", "--server", socket, *create))
        tls = str(self.root / "tls" / folder)
        _ = _said(_module("standalone", *line.split()[1:], "--tls-dir", tls))
        return tls

    def _run(self, name: str, argv: Sequence[str]) -> None:
        if self._net:
            argv = self._net.command(_host(name), argv)
        part = Part(name, argv, self.root / "logs" / f"{name}.log")
        self.parts[name] = part
        part.start()

    def _write_config(self, node: str) -> str:
        """The node's file; its path."""
        at = self._at(STATE, node)
        config = file.Config(
            fleet="three-nodes",
            node=f"node{node}",
            state_dir=str(self.root / "state" / node),
            controlplane=self._controlplanes,
            engines=(
                file.Engine(
                    url=f"http://{self._at(GPU, node)}:{self._engine[node]}", name=f"engine{node}"
                ),
            ),
            keys=(file.Key(name="users", key=file.Secret(file=str(self.root / "key"))),),
            etcd=file.Etcd(
                endpoints=tuple(self._etcd_url(n, client) for n, (client, _) in self._etcd.items()),
                allow_unsafe_version=etcd.unsafe(),
            ),
            tls=file.Tls(
                dir=str(self.root / "tls" / f"cp{node}"),
                enroll=f"{at}:{self._cp[node][1]}",
                names=(at,),
            ),
        )
        path = self.root / f"node{node}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(config)))
        return str(path)

    def _etcd_command(self, node: str) -> tuple[str, ...]:
        client, peer = (self._etcd_url(node, port) for port in self._etcd[node])
        members = [f"etcd{n}={self._etcd_url(n, ports[1])}" for n, ports in self._etcd.items()]
        return (
            str(etcd.binary()), "--name", f"etcd{node}", "--data-dir", f"{self.root}/etcd/{node}",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", ",".join(members), "--log-level", "error",
        )  # fmt: skip

    def _etcd_is_well(self) -> bool:
        return all(_get(f"{self._etcd_url(n, port)}/health") for n, (port, _) in self._etcd.items())

    def _etcd_url(self, node: str, port: int) -> str:
        return f"http://{self._at(STATE, node)}:{port}"

    def _until(self, name: str, condition: Callable[[], bool]) -> None:
        deadline_s = clock.now_s() + READY_S
        while not condition():
            if clock.now_s() > deadline_s or not self.parts[name].running:
                raise NotReadyError(f"{name} is not ready: {self.parts[name].last_words()}")
            time.sleep(POLL_S)


def _host(part: str) -> str:
    return HOST_OF[part[:-1]] + part[-1]


def _module(name: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", name, *args)


def _said(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=READY_S)
    if done.returncode:
        raise NotReadyError(f"{' '.join(command[3:])}: {done.stderr.strip()}")
    return done.stdout


def _get(url: str) -> bytes:
    """The answer's body; nothing when there is none."""
    try:
        with urlopen(url, timeout=1) as answer:  # noqa: S310 - ours
            body: bytes = answer.read()
            return body
    except (URLError, OSError):
        return b""


def _open_replicas(admin: str) -> int:
    body = _get(f"{admin}/readyz")
    return int(json.loads(body).get("open_replicas", 0)) if body else 0

"""Three nodes and two edges as processes of this machine, as an admin would set them up.

Each node has an etcd, a control plane, an agent and a (simulated) engine. Rules: what runs here is
what runs on three machines, but for the addresses (deploy/three-nodes); every process can be
killed, frozen and started again by its name.
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

from bench.cluster.parts import Part
from bench.cluster.ports import free
from tests.fakes import etcd
from trimtab.runtime import clock
from trimtab.runtime import config as file

READY_S = 60.0
POLL_S = 0.1
NODES = ("1", "2", "3")
EDGES = ("1", "2")
KEY = "sk-three-nodes-0123456789"
MODEL = "demo"
SLOTS = 16


class NotReadyError(Exception):
    """A part did not come up in time; says which, and its last words."""


class Cluster:
    """The fleet; `parts` by name: etcd1, cp1, agent1, engine1, ..., edge1, edge2."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.parts: dict[str, Part] = {}
        ports = iter(free(5 * len(NODES) + 2 * len(EDGES)))
        self._etcd = {node: (next(ports), next(ports)) for node in NODES}
        self._cp = {node: (next(ports), next(ports)) for node in NODES}
        self._engine = {node: next(ports) for node in NODES}
        self._edge = {edge: (next(ports), next(ports)) for edge in EDGES}

    @property
    def endpoints(self) -> list[str]:
        """Base URLs for clients, one an edge."""
        return [f"http://127.0.0.1:{port}/v1" for port, _ in self._edge.values()]

    @property
    def edge_admins(self) -> list[str]:
        """Where each edge's metrics are."""
        return [f"http://127.0.0.1:{admin}" for _, admin in self._edge.values()]

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
        for edge in EDGES:
            self._start_edge(edge)
        self.settle()

    def close(self) -> None:
        """End everything, the last one first."""
        for part in reversed(self.parts.values()):
            part.end()

    def settle(self) -> None:
        """Wait until every engine is in rotation at every edge."""
        for edge, admin in zip(EDGES, self.edge_admins, strict=True):
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

    def ctl(self, *words: str) -> str:
        """What `trimtab-ctl` prints."""
        return _said(_module("ctl", *self.ctl_flags, *words))

    @property
    def _controlplanes(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port, _ in self._cp.values())

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
        listen = f"127.0.0.1:{self._cp[node][0]}"
        own = ("--name", f"cp{node}", "--listen", listen)
        self._run(f"cp{node}", _module("controlplane", "--config", config, *own))

    def _start_node(self, node: str) -> None:
        flags = ("--served-model-name", MODEL, "--max-num-seqs", str(SLOTS))
        port = str(self._engine[node])
        self._run(f"engine{node}", _module("sim.engine_http", "--port", port, *flags))
        tls = self._join("agent", f"node{node}", f"agent{node}")
        config = ("--config", str(self.root / f"node{node}.json"))
        self._run(f"agent{node}", _module("agent", *config, "--tls-dir", tls))

    def _start_edge(self, edge: str) -> None:
        port, admin = self._edge[edge]
        listen = ("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}")
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
        part = Part(name, argv, self.root / "logs" / f"{name}.log")
        self.parts[name] = part
        part.start()

    def _write_config(self, node: str) -> str:
        """The node's file; its path."""
        config = file.Config(
            fleet="three-nodes",
            node=f"node{node}",
            state_dir=str(self.root / "state" / node),
            controlplane=self._controlplanes,
            engines=(
                file.Engine(url=f"http://127.0.0.1:{self._engine[node]}", name=f"engine{node}"),
            ),
            keys=(file.Key(name="users", key=file.Secret(file=str(self.root / "key"))),),
            etcd=file.Etcd(
                endpoints=tuple(f"http://127.0.0.1:{client}" for client, _ in self._etcd.values()),
                allow_unsafe_version=etcd.unsafe(),
            ),
            tls=file.Tls(
                dir=str(self.root / "tls" / f"cp{node}"),
                enroll=f"127.0.0.1:{self._cp[node][1]}",
                names=("127.0.0.1",),
            ),
        )
        path = self.root / f"node{node}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(config)))
        return str(path)

    def _etcd_command(self, node: str) -> tuple[str, ...]:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._etcd[node])
        members = [f"etcd{n}=http://127.0.0.1:{ports[1]}" for n, ports in self._etcd.items()]
        return (
            str(etcd.binary()), "--name", f"etcd{node}", "--data-dir", f"{self.root}/etcd/{node}",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", ",".join(members), "--log-level", "error",
        )  # fmt: skip

    def _etcd_is_well(self) -> bool:
        return all(_get(f"http://127.0.0.1:{port}/health") for port, _ in self._etcd.values())

    def _until(self, name: str, condition: Callable[[], bool]) -> None:
        deadline_s = clock.now_s() + READY_S
        while not condition():
            if clock.now_s() > deadline_s or not self.parts[name].running:
                raise NotReadyError(f"{name} is not ready: {self.parts[name].last_words()}")
            time.sleep(POLL_S)


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

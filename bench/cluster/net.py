"""Hosts of their own on one machine: a network namespace each, and a router between them.

Rules: all of it is in namespaces that only our own processes hold, so it vanishes with them however
we end, and nothing outside sees a packet of it. What is cut is dropped by the router without a word
(no RST, no ICMP), as a dead switch does. Only root can make it, on a kernel that can: `Net.refusal`
says why not.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

from standalone import leash

PREFIX = "10.203"
TOOLS = ("ip", "nsenter", "sysctl", "unshare")
CLONE_NEWNET = 0x40000000
OURS = "/proc/thread-self/ns/net"
HOLD = "import os; print(flush=True); os.read(0, 1)"


class Net:
    """Hosts by name, each with an address; `cut` and `heal` what is between two of them."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers = {host: number for number, host in enumerate(hosts, start=1)}
        self._cut: set[tuple[str, str]] = set()
        try:
            self._hold("")
            for host, number in self._numbers.items():
                self._hold(host)
                self._connect(host, number)
            _run(self.command("", (_tool("sysctl"), "-qw", "net.ipv4.ip_forward=1")))
        except BaseException:
            self.close()
            raise

    @staticmethod
    def refusal() -> str:
        """Why there can be no such network here; empty when it can."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "network namespaces need root on Linux"
        if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
            return f"network namespaces need {', '.join(missing)}"
        try:
            Net(("a",)).close()
        except (OSError, subprocess.SubprocessError) as error:
            return f"no network namespaces here: {error}"
        return ""

    def address(self, host: str) -> str:
        """Where it is."""
        return f"{PREFIX}.{self._numbers[host]}.2"

    def command(self, host: str, argv: Sequence[str]) -> tuple[str, ...]:
        """A command line that runs there; `host` "" is the router."""
        return (_tool("nsenter"), f"--net={self._path(host)}", *argv)

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """Be the router for the length of the block: this thread, and what it starts."""
        return entered(self._path(""))

    def cut(self, ones: Sequence[str], others: Sequence[str]) -> None:
        """No packet passes any more between any of these and any of those."""
        fresh = {*itertools.product(ones, others), *itertools.product(others, ones)} - self._cut
        self._rules("add", fresh)
        self._cut |= fresh

    def heal(self) -> None:
        """Everything passes again."""
        self._rules("del", self._cut)
        self._cut = set()

    def close(self) -> None:
        """End the holders, and with them the network."""
        for holder in self._holders.values():
            holder.kill()
            _ = holder.communicate()
        self._holders.clear()

    def _rules(self, verb: str, pairs: set[tuple[str, str]]) -> None:
        words = "rule {} prio 1 from {} to {} blackhole"
        self._ip("", *(words.format(verb, self.address(a), self.address(b)) for a, b in pairs))

    def _connect(self, host: str, number: int) -> None:
        """A cable to the router, which is the host's default route."""
        pid, net = self._holders[host].pid, f"{PREFIX}.{number}"
        self._ip(
            "",
            f"link add to{number} type veth peer name eth0 netns {pid}",
            f"addr add {net}.1/24 dev to{number}",
            f"link set to{number} up",
        )
        self._ip(
            host,
            f"addr add {net}.2/24 dev eth0",
            "link set eth0 up",
            f"route add default via {net}.1",
        )

    def _hold(self, host: str) -> None:
        """A process whose only work is to have a namespace; it dies with us."""
        bare, pipe = (sys.executable, "-I", "-S"), subprocess.PIPE
        leashed = (*bare, leash.__file__, str(os.getpid()), _tool("unshare"), "--net")
        holder = subprocess.Popen(
            (*leashed, *bare, "-c", HOLD), stdin=pipe, stdout=pipe, stderr=pipe
        )
        self._holders[host] = holder
        assert holder.stdout is not None
        if not holder.stdout.readline():
            raise OSError((holder.communicate()[1] or b"it ended").decode().strip())
        self._ip(host, "link set lo up")

    def _path(self, host: str) -> pathlib.Path:
        return pathlib.Path("/proc", str(self._holders[host].pid), "ns", "net")

    def _ip(self, host: str, *lines: str) -> None:
        """All in one process: one for each would take as long as a short cut."""
        _run(self.command(host, (_tool("ip"), "-batch", "-")), "\n".join(lines))


@contextlib.contextmanager
def entered(network: pathlib.Path) -> Iterator[None]:
    """Have this network namespace for the length of the block: this thread, and what it starts."""
    before = os.open(OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            yield
        finally:
            os.close(there)
            _enter(before)
    finally:
        os.close(before)


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


def _tool(name: str) -> str:
    return str(shutil.which(name))


def _run(command: Sequence[str], said: str = "") -> None:
    done = subprocess.run(
        command, input=said, capture_output=True, check=False, text=True, timeout=10
    )
    if done.returncode:
        raise OSError(f"{' '.join(command[2:])}: {done.stderr.strip()}")

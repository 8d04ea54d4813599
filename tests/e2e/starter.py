"""`trimtab up` as a user starts it: a process, with ports and a state directory of its own."""

from __future__ import annotations

import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import psutil

from trimtab.runtime.clock import now_s

WAIT_S = 60.0  # the machine may be busy


def free_address() -> str:
    """An address of loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@dataclass
class Up:
    """A running `trimtab up`."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    is_over: bool = False
    _news: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        """Collect what it says, until it ends; runs in a thread."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self.is_over = True
            self._news.notify_all()

    def wait_for(self, text: str, limit_s: float = WAIT_S) -> str:
        """The first line that has this text."""
        deadline_s = now_s() + limit_s
        with self._news:
            while not (found := [line for line in self.lines if text in line]):
                left_s = deadline_s - now_s()
                assert not self.is_over, f"no {text!r} in {self.lines}"
                assert left_s > 0, f"no {text!r} in {self.lines}"
                assert self._news.wait(left_s), f"no {text!r} in {self.lines}"
        return found[0]

    def row(self, name: str) -> str:
        """What stands beside a name below the ready line."""
        self.wait_for("Ctrl-C ends")
        rows = [line.split(None, 1) for line in self.lines if line.startswith("  ")]
        return {row[0]: row[1] for row in rows}[name]

    def children(self) -> list[psutil.Process]:
        """The processes that it runs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, module: str) -> psutil.Process:
        """The process that runs a module."""
        (found,) = [p for p in self.children() if module in p.cmdline()]
        return found

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait; its exit status. Nothing it started may be left."""
        children = self.children()
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
        return code


class Starter:
    """Starts `trimtab up`, and ends all that were started."""

    def __init__(self, state: pathlib.Path) -> None:
        self.state = state
        self.listen = free_address()
        self.admin = free_address()
        self.engines: list[subprocess.Popen[str]] = []
        self.controls: list[str] = []
        """Where faults of the engines are made."""
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []

    def command(self, *args: str) -> list[str]:
        """The command line, with ports and state of this test's own."""
        own = ["--listen", self.listen, "--admin", self.admin, "--state", str(self.state)]
        return [sys.executable, "-P", "-m", "standalone", "up", *own, *args]

    def start(self, *args: str) -> Up:
        """Start it; returns at once."""
        command = self.command(*args)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        up = Up(process)
        reader = threading.Thread(target=up.read, daemon=True)
        reader.start()
        self._processes.append(process)
        self._readers.append(reader)
        return up

    def refused(self, *args: str) -> tuple[int, str]:
        """Start it with something impossible; its exit status and what it says."""
        done = subprocess.run(
            self.command(*args), capture_output=True, text=True, check=False, timeout=WAIT_S
        )
        return done.returncode, done.stderr.strip()

    def engine(self) -> str:
        """Start a simulated engine that stands for a vLLM of the user's; its URL."""
        command = [sys.executable, "-P", "-m", "sim.engine_http", "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.engines.append(process)
        self._processes.append(process)
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        self.controls.append(f"http://127.0.0.1:{ports['control_port']}/sim/faults")
        return f"http://127.0.0.1:{ports['port']}"

    def end_all(self) -> None:
        """Leave nothing behind, whatever the test did."""
        for process in self._processes:
            process.kill()
            process.wait(WAIT_S)
        for reader in self._readers:
            reader.join(WAIT_S)
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.close()

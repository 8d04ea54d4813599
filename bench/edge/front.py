"""Who stands in front of the engine, on one core of its own, and what it uses.

Rules: peers are installed and configured as for `./run bench goodput`; of Trimtab it is the edge's
process alone, behind a control plane that only pushes, since that is what a request passes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import psutil

from bench.edge.control import SLOTS, control
from bench.edge.load import Tally, open_callers, request
from bench.goodput import install
from bench.goodput.cell import NotReadyError, free_ports, fresh, process_cpu_s
from bench.goodput.engines import leashed
from bench.goodput.peers import Peer, Place, Program
from bench.goodput.scenario import EngineKind
from trimtab.runtime.clock import now_s

READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 8.0
TRIMTAB = "trimtab"


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where."""

    front: int
    callers: int
    engine: int


@dataclass(frozen=True, slots=True)
class Front:
    """A running proxy; pid 0 when there is none."""

    name: str
    port: int
    pid: int
    core: int

    def cpu_s(self) -> float:
        """What it has used, its children's included."""
        return process_cpu_s(self.pid) if self.pid else 0.0

    def core_s(self) -> float:
        """What its core was used, by anybody."""
        times = psutil.cpu_times(percpu=True)[self.core]
        return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)

    def memory_bytes(self) -> int:
        """Resident, all processes together."""
        if not self.pid:
            return 0
        top = psutil.Process(self.pid)
        return sum(each.memory_info().rss for each in (top, *top.children(recursive=True)))


@contextmanager
def engine(core: int) -> Iterator[list[int]]:
    """The engine's process; its two ports."""
    command = leashed(sys.executable, "-P", "-m", "bench.edge.engine")
    with _pinned(core):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        _end(process)


@asynccontextmanager
async def front(
    peer: Peer, program: Program, engines: Sequence[int], cores: Cores, python: str
) -> AsyncIterator[Front]:
    """A peer, until the block ends, our edge under this Python; raises NotReadyError."""
    if not program.command:
        yield Front(peer.name, engines[0], 0, cores.front)
        return
    folder = install.CACHE / "run" / f"edge-{peer.name}"
    log = fresh(folder)
    place = Place(folder, free_ports(), engines, EngineKind(slots=SLOTS))
    async with contextlib.AsyncExitStack() as stack:
        command = [*program.command, *peer.arguments(place)]
        if peer.name == TRIMTAB:
            socket = f"unix:{folder}/control.sock"
            await stack.enter_async_context(control(socket, place.urls))
            command = _edge(place, socket, python)
        with _pinned(cores.front), log.open("wb") as output:
            process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
                leashed(*command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **program.env},
                start_new_session=True,
            )
        stack.callback(_end, process)
        await _until_ready(peer.name, place.ports[0], folder)
        yield Front(peer.name, place.ports[0], process.pid, cores.front)


def _edge(place: Place, socket: str, python: str) -> list[str]:
    listen, admin = (f"127.0.0.1:{port}" for port in place.ports)
    where = ["--listen", listen, "--admin", admin, "--state", str(place.folder)]
    return [python, "-P", "-m", "edge", "--controlplane", socket, *where]


async def _until_ready(name: str, port: int, folder: pathlib.Path) -> None:
    """Ask until it has answered some times, so that no connection is cold."""
    deadline_s, tally = now_s() + READY_TIMEOUT_S, Tally()
    while now_s() < deadline_s:
        tally.clear()
        with contextlib.suppress(OSError):
            callers = await open_callers(port, 4, request(port), tally)
            await asyncio.sleep(1.0)
            for caller in callers:
                caller.close()
            if tally.answers > 20 and not tally.errors:
                return
        await asyncio.sleep(0.2)
    raise NotReadyError(f"{name} did not answer; see {folder}/log")


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    """What is started inside runs on this core, and all that it starts."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.stdin is None:  # it led a group of its own
            os.killpg(process.pid, signal.SIGKILL)

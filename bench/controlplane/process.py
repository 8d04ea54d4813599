"""The control plane's process, pinned to a core, and what it uses.

Rules: its store and socket are in a folder that ends with it; what the store has written is read
from a copy of its file, since the file itself is held.
"""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psutil

from trimtab.runtime import rpc
from trimtab.runtime.clock import now_s

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
SAMPLE_PERIOD_S = 0.25


@dataclass(frozen=True, slots=True)
class Use:
    """What one process did in a span of time."""

    cores: float
    rss_bytes: int
    others_cores: float
    """What others took of its core."""
    writes: int
    """Transactions of the store."""


class Server:
    """A running control plane."""

    def __init__(self, process: psutil.Popen, folder: pathlib.Path, core: int) -> None:
        self.target = f"unix:{folder}/control.sock"
        self._process = process
        self._folder = folder
        self._core = core

    async def ready(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(START_TIMEOUT_S), rpc.channel(self.target) as channel:
            await channel.channel_ready()

    async def use(self, span_s: float) -> Use:
        """Watch it for so long."""
        began_s, busy_s, core_s = now_s(), self._busy_s(), self._core_s()
        writes, rss_bytes = self._revision(), 0
        while (left_s := began_s + span_s - now_s()) > 0.0:
            rss_bytes = max(rss_bytes, self._process.memory_info().rss)
            await asyncio.sleep(min(left_s, SAMPLE_PERIOD_S))
        took_s, used_s = now_s() - began_s, self._busy_s() - busy_s
        others_s = self._core_s() - core_s - used_s
        writes = self._revision() - writes
        return Use(used_s / took_s, rss_bytes, max(0.0, others_s / took_s), writes)

    @property
    def log(self) -> str:
        """What it said."""
        return (self._folder / "log").read_text()

    def _busy_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _core_s(self) -> float:
        times = psutil.cpu_times(percpu=True)[self._core]
        return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)

    def _revision(self) -> int:
        with tempfile.TemporaryDirectory(dir=self._folder) as copy:
            for path in self._folder.glob("store.db*"):
                shutil.copy(path, copy)
            with closing(sqlite3.connect(pathlib.Path(copy) / "store.db")) as database:
                row = database.execute("SELECT number FROM meta WHERE name = 'revision'")
                return int(row.fetchone()[0])


@contextmanager
def server(core: int) -> Iterator[Server]:
    """Start one on this core; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        folder = pathlib.Path(name)
        where = ["--listen", f"unix:{folder}/control.sock", "--store", str(folder / "store.db")]
        command = [sys.executable, "-P", "-m", "controlplane.main", *where]
        with (folder / "log").open("w") as log:
            process = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.cpu_affinity([core])
            yield Server(process, folder, core)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait()

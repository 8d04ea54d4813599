"""Two simulated engines as processes, the troubles they get into, and what they count."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from bench.goodput.client import MODEL
from bench.goodput.scenario import EngineKind, Trouble
from standalone import leash


@dataclass(frozen=True, slots=True)
class Engine:
    """One running engine; its control port answers whatever its state."""

    port: int
    control_url: str
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    async def counts(self) -> dict[str, int]:
        """What it has counted since its process began."""
        async with self.session.get(f"{self.control_url}/sim/counts") as answer:
            counts: dict[str, int] = await answer.json()
            return counts

    async def fall_ill(self, trouble: Trouble) -> None:
        """The trouble begins."""
        await self._order(trouble.fault)

    async def recover(self, trouble: Trouble) -> None:
        """The trouble ends: all is well again, or it starts again from cold."""
        if trouble.cold_s:
            await self._order({"die_mid_stream": None, "cold_start_s": trouble.cold_s})
        else:
            async with self.session.delete(f"{self.control_url}/sim/faults") as answer:
                answer.raise_for_status()

    async def _order(self, order: dict[str, object]) -> None:
        async with self.session.post(f"{self.control_url}/sim/faults", json=order) as answer:
            answer.raise_for_status()


def leashed(*command: str) -> tuple[str, ...]:
    """A command whose program can't outlive us."""
    return (sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command)


@asynccontextmanager
async def engines(kind: EngineKind) -> AsyncIterator[list[Engine]]:
    """Two of them on free ports, until the block ends."""
    module = (sys.executable, "-P", "-m", "sim.engine_http", "--port", "0", "--model", MODEL)
    command = leashed(*module, *kind.flags())
    processes = [
        await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
            found = []
            for process in processes:
                assert process.stdout is not None
                ports = json.loads(await process.stdout.readline())
                control_url = f"http://127.0.0.1:{ports['control_port']}"
                found.append(Engine(ports["port"], control_url, session))
            yield found
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()

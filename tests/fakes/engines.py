"""Simulated engines as processes of their own, for tests that need real sockets and real deaths."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp


@dataclass(slots=True)
class SimEngine:
    """One running engine."""

    url: str
    control_url: str
    process: asyncio.subprocess.Process

    async def fault(self, **faults: object) -> None:
        """Switch faults on."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.control_url}/sim/faults", json=faults) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def heal(self) -> None:
        """Switch all faults off; a dead engine lives again."""
        async with (
            aiohttp.ClientSession() as session,
            session.delete(f"{self.control_url}/sim/faults") as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def gauge(self, name: str) -> float:
        """One unlabelled reading of `vllm:<name>`."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        values = [line for line in text.splitlines() if line.startswith(f"vllm:{name}{{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in values)


@asynccontextmanager
async def sim_engine(*flags: str, model: str = "demo") -> AsyncIterator[SimEngine]:
    """An engine on free ports; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sim.engine_http", "--port", "0", "--model", model, *flags),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        ports = json.loads(await process.stdout.readline())
        yield SimEngine(
            url=f"http://127.0.0.1:{ports['port']}",
            control_url=f"http://127.0.0.1:{ports['control_port']}",
            process=process,
        )
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()

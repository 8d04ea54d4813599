"""A simulated engine as a real process, and its answers as raw bytes."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

DEADLINE_S = 45.0
ROOT = Path(__file__).parents[2]


@dataclass
class SimEngine:
    """A running engine process."""

    process: subprocess.Popen[str]
    port: int
    control_port: int

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    async def faults(self, **changes: object) -> None:
        """Post a change; when this returns, it is in force."""
        await asyncio.to_thread(self._control, "POST", changes)

    async def heal(self) -> None:
        """Clear all faults; a dead engine is alive again."""
        await asyncio.to_thread(self._control, "DELETE", None)

    def _control(self, method: str, changes: object) -> None:
        url = f"http://127.0.0.1:{self.control_port}/sim/faults"
        body = None if changes is None else json.dumps(changes).encode()
        with urlopen(Request(url, body, method=method), timeout=DEADLINE_S):
            pass

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A plain connection."""
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)

    async def exchange(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> bytes:
        """One request on a connection of its own; every byte of the answer."""
        reader, writer = await self.connect()
        writer.write(request_bytes(method, path, body, {"Connection": "close"} | (headers or {})))
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async def post(self, path: str, data: dict[str, Any]) -> bytes:
        """POST some JSON; every byte of the answer."""
        headers = {"Content-Type": "application/json"}
        return await self.exchange("POST", path, json.dumps(data).encode(), headers)


def request_bytes(method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A request as it goes over the wire."""
    head = {"Host": "test", "Content-Length": str(len(body))} | headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


Start = Callable[..., SimEngine]


@pytest.fixture(scope="module")
def start_engine() -> Iterator[Start]:
    """Start engines by their flags; they end with the module."""
    processes: list[subprocess.Popen[str]] = []

    def start(*flags: str) -> SimEngine:
        command = [sys.executable, "-m", "sim.engine_http", "--port", "0", *flags]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        return SimEngine(process, ports["port"], ports["control_port"])

    yield start
    for process in processes:
        process.terminate()
        assert process.wait(timeout=DEADLINE_S) in (0, -9)
        assert process.stdout is not None
        process.stdout.close()

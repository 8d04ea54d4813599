"""An engine that answers with bytes recorded from a real vLLM, and keeps what it was sent.

A request says in its fields which recording it wants, how much of it before the engine falls
silent, and whether byte by byte; fields unknown to the edge survive.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

DATA = pathlib.Path(__file__).parents[1] / "data" / "vllm"
PLAIN = "chat-nonstream"


class _Asked(msgspec.Struct):
    replay: str = PLAIN
    hold_bytes: int | None = None
    trickle: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(slots=True)
class ReplayEngine:
    """Where it listens and what it was asked."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    keeps_bodies: bool = True
    """Or throws them away, and answers with PLAIN."""
    left: int = 0
    """Callers who left an answer that did not end."""

    async def _body(self, reader: asyncio.StreamReader, length: int) -> bytes:
        if self.keeps_bodies:
            return await reader.readexactly(length)
        while length > 0:
            length -= len(await reader.read(64 * 1024))
        return b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; recordings end it, as they say."""
        try:
            line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            headers = [(n.lower(), v) for n, _, v in (each.partition(": ") for each in rest)]
            body = await self._body(reader, int(dict(headers).get("content-length", "0")))
            self.received.append(Received(line, headers, body))
            asked = msgspec.json.decode(body, type=_Asked) if body else _Asked()
            answer = (DATA / f"{asked.replay}.http").read_bytes()[: asked.hold_bytes]
            for part in (bytes([byte]) for byte in answer) if asked.trickle else (answer,):
                writer.write(part)
                await writer.drain()
            if asked.hold_bytes is not None:
                await reader.read()
                self.left += 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # its caller left
        finally:
            writer.close()


@asynccontextmanager
async def replay_engine() -> AsyncIterator[ReplayEngine]:
    """One on a free port."""
    engine = ReplayEngine()
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, limit=1024 * 1024)
    engine.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield engine
    finally:
        server.close()

"""An engine (or any OpenAI-compatible API) inside the test's process that does as it is told.

Its answers wait at two gates, before their first byte and before their end; a test closes them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

WORDS = ("Hello", " from", " here")


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@dataclass(slots=True)
class ScriptedEngine:
    """What it was asked, what it answers."""

    name: str
    url: str = ""
    status: int = 200
    error: str = "it failed"
    words: tuple[str, ...] = WORDS
    usage: dict[str, Any] = field(
        default_factory=lambda: {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    )
    tells_usage: bool = False
    """In streams, too."""
    first: asyncio.Event = field(default_factory=_open_gate)
    """Open: answers begin."""
    last: asyncio.Event = field(default_factory=_open_gate)
    """Open: answers end."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    running: int = 0
    left: int = 0
    """Requests whose caller went away before the end."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any POST."""
        body = await request.json()
        self.asked.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.paths.append(request.path)
        self.running += 1
        try:
            await self.first.wait()
            if self.status != 200:
                error = {"error": {"message": self.error, "code": self.status}}
                return web.json_response(error, status=self.status)
            return await (self._stream(request) if body.get("stream") else self._plain())
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.running -= 1

    async def _plain(self) -> web.Response:
        await self.last.wait()
        text = "".join(self.words)
        choice = {"index": 0, "text": text, "finish_reason": "stop"}
        fields = {"id": f"{self.name}-{len(self.asked)}", "choices": [choice], "usage": self.usage}
        return web.json_response({"object": "text_completion", "model": "it", **fields})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        made = {"id": f"{self.name}-{len(self.asked)}", "object": "text_completion", "model": "it"}
        for place, word in enumerate(self.words):
            if place == len(self.words) - 1:
                await self.last.wait()
            finish = "stop" if place == len(self.words) - 1 else None
            choice = {"index": 0, "text": word, "finish_reason": finish}
            event = json.dumps({**made, "choices": [choice]}, separators=(",", ":"))
            await response.write(f"data: {event}\n\n".encode())
        if self.tells_usage:
            event = json.dumps({**made, "choices": [], "usage": self.usage}, separators=(",", ":"))
            await response.write(f"data: {event}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


@asynccontextmanager
async def scripted_engine(name: str = "it") -> AsyncIterator[ScriptedEngine]:
    """One, listening on loopback."""
    engine = ScriptedEngine(name)
    app = web.Application()
    app.router.add_post("/{path:.*}", engine.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield engine
    finally:
        await runner.cleanup()

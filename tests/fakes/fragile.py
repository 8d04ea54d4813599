"""An engine that a word in the prompt kills, or makes fail; everything else it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

KILLS, FAILS = b"arsenic", b"garlic"
ANSWER = b'{"id":"1","object":"text_completion","choices":[{"text":"ok"}],"usage":{}}'


@dataclass(slots=True)
class FragileEngine:
    """One engine; it stays down once it died, unless it heals."""

    url: str = ""
    dead: bool = False
    deaths: int = 0
    taken: list[bytes] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer, fail or die."""
        body = await request.read()
        if not self.dead:
            self.taken.append(body)
        if KILLS in body and not self.dead:
            self.dead = True
            self.deaths += 1
        if self.dead:
            assert request.transport is not None
            request.transport.abort()
        if FAILS in body:
            return web.json_response({"error": {"message": "boom"}}, status=500)
        return web.Response(body=ANSWER, content_type="application/json")


@asynccontextmanager
async def fragile_engine() -> AsyncIterator[FragileEngine]:
    """An engine on a free port."""
    engine = FragileEngine()
    runner = web.ServerRunner(web.Server(engine.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    engine.url = f"http://127.0.0.1:{port}"
    try:
        yield engine
    finally:
        await runner.cleanup()

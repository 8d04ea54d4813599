"""The control plane's /metrics and status page, on an address only when it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from controlplane.metrics import ControlMetrics
from controlplane.seat import Seat
from controlplane.watch import Watch
from trimtab.runtime import page, shapes, telemetry
from trimtab.runtime.page import Page


@asynccontextmanager
async def serving(address: str, seat: Seat, metrics: ControlMetrics) -> AsyncIterator[None]:
    """Serve it for the length of the block, if there is an address; raises ConfigError."""
    if not address:
        yield
        return

    async def scrape(request: web.Request) -> web.Response:
        metrics.refresh()
        accept = request.headers.get("accept", "")
        text = await asyncio.to_thread(metrics.render, accept)
        return web.Response(body=text, headers={"content-type": telemetry.content_type(accept)})

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    async with page.serving(app, *shapes.split_address(address), Page(Watch(seat))):
        yield

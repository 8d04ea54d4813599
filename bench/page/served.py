"""The page over a source of one's own, on a free port of this machine."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from trimtab.runtime import page
from trimtab.runtime.page import Page, Source


@asynccontextmanager
async def served(source: Source) -> AsyncIterator[str]:
    """Its URL, for the length of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with page.serving(web.Application(), "127.0.0.1", port, Page(source)):
        yield f"http://127.0.0.1:{port}/"

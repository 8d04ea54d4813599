"""A WebSocket on a connection of ours: once it is let in, aiohttp has the frames.

Rules: aiohttp gets the head as it came and answers it; the connection stays ours, so that its end
cancels whoever serves it, as any other.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from edge.http.request import Request


async def accept(request: Request, here: web.WebSocketResponse, over: asyncio.Event) -> None:
    """Let a caller in that asks for one; aiohttp ends the connection when the session is over."""
    asked: asyncio.Future[web.BaseRequest] = asyncio.get_running_loop().create_future()

    async def session(theirs: web.BaseRequest) -> web.StreamResponse:
        asked.set_result(theirs)
        await over.wait()
        return here

    if request.hand_over is None:
        raise ValueError("no WebSocket is asked for")
    request.hand_over(web.Server(session, access_log=None)())
    await here.prepare(await asked)

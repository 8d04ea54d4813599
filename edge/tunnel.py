"""A WebSocket between a caller and a replica: /v1/realtime.

Rules: it holds a slot of the replica from its beginning to its end, and ends when either side does,
when nobody says anything for the idle time, or after SESSION_LIMIT_S. Who names the model in the
URL, or can use only one, is refused by an HTTP status if he must be; others are let in to say it in
their first frame. A frame has a limit; who does not read is not waited for. A replica that is lost
in the middle ends it with an error: a session's audio is nowhere but there.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from edge.admission import Permit, RefusedError
from edge.attempt import Errand, Result, Whole
from edge.carriers import Carriers
from edge.core import problems, realtime
from edge.core.problems import Problem
from edge.core.realtime import Frame, Verdict
from edge.core.surface import REALTIME
from edge.http import websocket
from edge.http.request import Request
from edge.http.response import Response
from edge.upstream import UpstreamError
from trimtab.policy.classify import Failure, Fault
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner

FRAME_LIMIT_BYTES = 16 * 1024 * 1024  # uvicorn's own, and so vLLM's
FIRST_FRAME_S = 30.0  # to say which model it is about
SESSION_LIMIT_S = 3_600.0
HEARTBEAT_S = 30.0  # who answers no ping within half of it is gone
CLOSE_S = 1.0  # for the other side to say goodbye
PROTOCOLS = ("realtime",)
_BUSY = WSCloseCode.TRY_AGAIN_LATER


class Tunnel:
    """One session; a Passing of the course."""

    def __init__(self, request: Request, carriers: Carriers) -> None:
        self._request = request
        self._carriers = carriers
        self._here: web.WebSocketResponse | None = None
        self._over = asyncio.Event()
        self._greeted = False
        self._stands = False
        self._first = ""
        self._began_s = self._heard_s = clock.now_s()
        self.may_name: Callable[[str], bool] = lambda _: True
        """Whether a name means the model that the session is about."""

    @property
    def can_retry(self) -> bool:
        """Whether another replica can be tried."""
        return not self._stands

    @property
    def response(self) -> Response | None:
        """What the server is to be given at the end, once the caller was let in."""
        return None if self._here is None else Response(101, is_out=True)

    async def asked(self) -> str:
        """Let the caller in to say which model he wants; raises RefusedError."""
        here = await self._accept()
        session_id = f"sess-{uuid.uuid4().hex}"
        await here.send_str(realtime.created(session_id, clock.wall_s()))
        self._greeted = True
        try:
            async with asyncio.timeout(FIRST_FRAME_S):
                message = await here.receive()
        except TimeoutError:
            raise RefusedError(problems.too_slow("first session.update", FIRST_FRAME_S)) from None
        if message.type is not WSMsgType.TEXT:
            raise ConnectionResetError("the caller left before it said anything")
        frame = realtime.read(message.data)
        if frame.verdict is not Verdict.NAMES:
            raise RefusedError(problems.session_without_model())
        self._first = message.data
        return frame.model

    async def attempt(self, errand: Errand) -> Result:
        """Be the session, on this replica, to its end."""
        permit, headers = errand.permit, errand.headers
        permit.speaking = True
        path = f"{REALTIME}?model={quote(permit.served_as, safe='')}"
        try:
            there = await self._carriers.socket(permit.route, path, headers, FRAME_LIMIT_BYTES)
        except UpstreamError as error:
            if error.failure.status in {403, 404}:  # as vLLM says that it has no such path
                return Failure(Fault.STATUS, 400, "This model takes no realtime sessions.")
            return error.failure
        try:
            here = await self._accept()
            self._stands = True
            self._began_s = self._heard_s = clock.now_s()
            return await self._join(here, there, permit, errand.idle_s)
        except asyncio.CancelledError:
            # aiohttp cancels whoever serves a closed connection: after a goodbye that is the end
            task = asyncio.current_task()
            if task is None or self._here is None or self._here.close_code != WSCloseCode.OK:
                raise
            task.uncancel()
            return Whole()
        finally:
            await there.close()

    async def fail(self, problem: Problem) -> Response | None:
        """End it so; None where a status can still say it."""
        if self._here is None:
            return None
        code = _BUSY if problem.retry_after_s is not None else WSCloseCode.POLICY_VIOLATION
        code = WSCloseCode.INTERNAL_ERROR if 500 <= problem.status != 503 else code
        with contextlib.suppress(ConnectionError):
            await self._here.send_str(realtime.error(problem))
        await self.close(code)
        return self.response

    async def close(self, code: int) -> None:
        """Say goodbye to the caller."""
        if self._here is not None:
            await self._here.close(code=code)

    def release(self) -> None:
        """Nobody serves it any more."""
        self._over.set()

    async def _accept(self) -> web.WebSocketResponse:
        if self._here is None:
            here = web.WebSocketResponse(
                timeout=CLOSE_S,
                heartbeat=HEARTBEAT_S,
                max_msg_size=FRAME_LIMIT_BYTES,
                protocols=PROTOCOLS,
                compress=False,
            )
            here.headers.update(self._request.journey.headers(clock.now_s()))
            await websocket.accept(self._request, here, self._over)
            self._here = here
        return self._here

    async def _join(
        self,
        here: web.WebSocketResponse,
        there: aiohttp.ClientWebSocketResponse,
        permit: Permit,
        idle_s: float,
    ) -> Result:
        lost = asyncio.Event()
        permit.on_lost = lost.set
        if permit.lost:
            lost.set()
        try:
            async with TaskRunner() as tasks:
                ends = {
                    "caller": tasks.once("up", self._up(here, there, permit.served_as)),
                    "replica": tasks.once("down", self._down(here, there, permit)),
                    "lost": tasks.once("lost", lost.wait()),
                }
                done: set[asyncio.Task[Any]] = set()
                while not done and (left_s := self._left_s(idle_s)) > 0.0:
                    done, _ = await asyncio.wait(
                        ends.values(), timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                    )
                first = next((name for name, task in ends.items() if task in done), "nobody")
                for task in ends.values():
                    task.cancel()
        finally:
            permit.on_lost = None
        return await self._end(first, here, there)

    async def _end(
        self, first: str, here: web.WebSocketResponse, there: aiohttp.ClientWebSocketResponse
    ) -> Result:
        if first == "lost":
            return Failure(Fault.LOST)
        if first == "replica" and there.close_code in {None, WSCloseCode.ABNORMAL_CLOSURE}:
            return Failure(Fault.CUT)
        if first == "nobody":
            await self.fail(problems.session_over())
        elif first == "replica":
            await here.close(code=_passable(there.close_code))
        else:
            await there.close(code=_passable(here.close_code))
        return Whole()

    async def _up(
        self,
        here: web.WebSocketResponse,
        there: aiohttp.ClientWebSocketResponse,
        served_as: str,
    ) -> None:
        """What the caller says, until he ends."""
        with contextlib.suppress(ConnectionError):
            if self._first:
                await there.send_str(realtime.renamed(self._first, served_as))
            async for message in here:
                self._heard_s = clock.now_s()
                if message.type is WSMsgType.BINARY:
                    await there.send_bytes(message.data)
                elif message.type is not WSMsgType.TEXT:
                    return
                elif problem := self._problem(frame := realtime.read(message.data)):
                    await here.send_str(realtime.error(problem))
                elif frame.verdict is Verdict.NAMES:
                    await there.send_str(realtime.renamed(message.data, served_as))
                else:
                    await there.send_str(message.data)

    def _problem(self, frame: Frame) -> Problem | None:
        if frame.verdict is Verdict.BROKEN:
            return problems.bad_json("a frame must hold one event")
        if frame.verdict is Verdict.NAMES and not self.may_name(frame.model):
            return problems.other_model(frame.model)
        return None

    async def _down(
        self,
        here: web.WebSocketResponse,
        there: aiohttp.ClientWebSocketResponse,
        permit: Permit,
    ) -> None:
        """What the replica says, until it ends."""
        opening = self._greeted
        with contextlib.suppress(ConnectionError):
            async for message in there:
                self._heard_s = clock.now_s()
                if message.type is WSMsgType.TEXT:
                    if opening and realtime.is_created(message.data):
                        opening = False
                        continue
                    permit.tokens += 1  # an event a token, nearly
                    if permit.tokens == 1:
                        permit.on_began()
                    await here.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await here.send_bytes(message.data)
                else:
                    return

    def _left_s(self, idle_s: float) -> float:
        """How long it may go on if nobody says anything."""
        ends_s = min(self._began_s + SESSION_LIMIT_S, self._heard_s + idle_s)
        return ends_s - clock.now_s()


class Tunnels:
    """Those that are open."""

    def __init__(self) -> None:
        self._open: set[Tunnel] = set()

    def add(self, tunnel: Tunnel) -> None:
        """It begins."""
        self._open.add(tunnel)

    def remove(self, tunnel: Tunnel) -> None:
        """It is over."""
        self._open.discard(tunnel)
        tunnel.release()

    async def close(self) -> None:
        """End them all: this edge goes."""
        await asyncio.gather(*(t.close(WSCloseCode.GOING_AWAY) for t in list(self._open)))


def _passable(code: int | None) -> int:
    """A code that may be said to the other side: some are only ever noted."""
    known = code is not None and (code in {1000, 1001, 1002, 1003} or 1007 <= code <= 4999)
    return code if known and code is not None and code != 1015 else WSCloseCode.OK

"""One run for all requests with the same Idempotency-Key of one caller: the others get its answer.

Rules: a duplicate waits for the one that runs, and runs itself when that one fails; it waits at
most WAIT_MAX_S, then it is told to come back (409, which the SDKs do by themselves). A caller who
leaves ends his request, key or not; his next try runs again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edge.admission import RefusedError
from edge.core import openai, problems
from edge.core.openai import Call
from edge.core.replay import Answer, Found, Recording, Replays, digest
from edge.http.request import Request
from edge.http.response import Response
from trimtab.policy.queue import PATIENCE_RATIO
from trimtab.runtime import clock
from trimtab.runtime.telemetry import EdgeMetrics

WAIT_MAX_S = 45.0  # 3/4 of the 60 s after which the common clients give up

Serve = Callable[[], Awaitable[Response]]


class Once:
    """Remembers what ran."""

    def __init__(self, metrics: EdgeMetrics) -> None:
        self._metrics = metrics
        self._replays = Replays()
        self._runs: dict[bytes, asyncio.Event] = {}

    async def serve(self, request: Request, call: Call, caller: bytes, serve: Serve) -> Response:
        """Serve it, or replay what was served; `caller` is the hash of his key."""
        name = request.headers.get("idempotency-key", "")
        if not name or call.method != "POST":
            return await serve()
        key = digest(caller, name.encode(errors="replace"))
        answer = await self._earlier(key, call, openai.patience_s(request.headers))
        if answer is not None:
            self._metrics.replays.labels("replayed").inc()
            headers = {**answer.headers, "x-trimtab-replayed": "true"}
            return Response(200, answer.body, headers)
        recording = request.recording = Recording()
        over = self._runs[key] = asyncio.Event()
        response: Response | None = None
        try:
            response = await serve()
            return response
        finally:
            self._replays.ended(key, _kept(response, recording), clock.now_s())
            del self._runs[key]
            over.set()

    async def _earlier(self, key: bytes, call: Call, patience_s: float | None) -> Answer | None:
        """What was answered before; None when it is this request's turn to run."""
        asked = digest(call.path.encode(), call.body)
        within_s = min(WAIT_MAX_S, PATIENCE_RATIO * (patience_s or WAIT_MAX_S))
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = self._replays.look(key, asked, clock.now_s())
                    if isinstance(found, Answer):
                        return found
                    if found is Found.NOTHING:
                        return None
                    if found is Found.ANOTHER:
                        self._metrics.replays.labels("mismatch").inc()
                        raise RefusedError(problems.key_reused())
                    await self._runs[key].wait()
        except TimeoutError:
            self._metrics.replays.labels("in_use").inc()
            raise RefusedError(problems.key_in_use(within_s)) from None


def _kept(response: Response | None, recording: Recording) -> Answer | None:
    if response is None or response.is_out:
        return recording.answer
    return Answer.of(response.body, response.headers) if response.status == 200 else None

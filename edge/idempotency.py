"""One run for all requests with the same Idempotency-Key of one caller: the others get its answer.

Rules: a duplicate waits for the one that runs, and runs itself when that one fails; it waits at
most WAIT_MAX_S, then it is told to come back (409, which the SDKs do by themselves). A caller who
leaves ends his request, key or not; his next try runs again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from edge.admission import RefusedError
from edge.core import openai, problems
from edge.core.openai import Call
from edge.core.replay import Answer, Found, Recording, digest
from edge.http.request import Request
from edge.http.response import Response
from edge.ledger import Ledgers, Turn
from edge.metrics import EdgeMetrics
from trimtab.policy.queue import PATIENCE_RATIO

NAME = "idempotency-key"
WAIT_MAX_S = 45.0  # 3/4 of the 60 s after which the common clients give up

Serve = Callable[[], Awaitable[Response]]


class Once:
    """Remembers what ran."""

    def __init__(self, metrics: EdgeMetrics) -> None:
        self._metrics = metrics
        self.ledgers = Ledgers()

    @staticmethod
    def concerns(request: Request, call: Call) -> bool:
        """Whether its caller has named it."""
        return bool(request.headers.get(NAME)) and call.method == "POST"

    async def serve(self, request: Request, call: Call, caller: bytes, serve: Serve) -> Response:
        """Serve one that has a name, or replay what was; `caller` is the hash of his key."""
        key = digest(caller, request.headers[NAME].encode(errors="replace"))
        turn = await self._turn(key, call, openai.patience_s(request.headers))
        if isinstance(answer := turn.found, Answer):
            self._metrics.replays.labels("replayed").inc()
            headers = {**answer.headers, "x-trimtab-replayed": "true"}
            return Response(200, answer.body, headers)
        recording = request.recording = Recording()
        response: Response | None = None
        try:
            response = await serve()
            return response
        finally:
            turn.ended(_kept(response, recording))

    async def _turn(self, key: bytes, call: Call, patience_s: float | None) -> Turn:
        """What was answered before, or that it is this request's turn to run."""
        asked = digest(call.path.encode(), call.body)
        within_s = min(WAIT_MAX_S, PATIENCE_RATIO * (patience_s or WAIT_MAX_S))
        turn = await self.ledgers.claim(key, asked, within_s)
        if turn.found is Found.ANOTHER:
            self._metrics.replays.labels("mismatch").inc()
            raise RefusedError(problems.key_reused())
        if turn.found is Found.RUNNING:
            self._metrics.replays.labels("in_use").inc()
            raise RefusedError(problems.key_in_use(within_s))
        return turn


def _kept(response: Response | None, recording: Recording) -> Answer | None:
    if response is None or response.is_out:
        return recording.answer
    return Answer.of(response.body, response.headers) if response.status == 200 else None

"""The listening side: routes, what is denied, health, draining.

Rules: what is not listed here is denied; every answer is OpenAI-shaped; what only operators may
read, /metrics and /decisions, lives on the admin address, where aiohttp serves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiohttp import web

from edge import answers
from edge.admission import RefusedError
from edge.answers import AnswerHeaders, complete, respond
from edge.core import anthropic, decisions, envelopes, models, openai, problems, surface, unrouted
from edge.core.decisions import Decisions, Record
from edge.core.dispatch import Dispatch
from edge.core.headers import Journey
from edge.core.models import Target
from edge.core.problems import Problem
from edge.core.surface import Dialect, Found, Surface
from edge.core.table import RoutingTable
from edge.http.request import Request
from edge.http.response import Response
from edge.metrics import EdgeMetrics
from edge.proxy import Proxy
from trimtab.policy.autonomy import Mode
from trimtab.runtime import clock, telemetry

ALIVE_BODY = b'{"status":"ok"}'
ASKED_ALL_THE_TIME = frozenset({surface.ALIVE, surface.ALIVE_ALIAS, surface.READY})
DECISIONS_SHOWN = 20
DECISIONS_SHOWN_MAX = 1_000
NO_DECISION = "No such record here: too old, another edge's, or turned away before the queue.\n"
log = logging.getLogger("edge.server")

Handler = Callable[[Request, Found, str], Awaitable[Response]]


class Endpoint:
    """The one address that clients know."""

    def __init__(
        self,
        proxy: Proxy,
        table: RoutingTable,
        dispatch: Dispatch,
        headers: AnswerHeaders,
        extra_paths: Iterable[str] = (),
    ) -> None:
        self._headers = headers
        self._proxy = proxy
        self._table = table
        self._dispatch = dispatch
        self._created = int(clock.wall_s())
        self.draining = False
        self.finished: list[Callable[[Record], None]] = []
        """Whom to tell of each request that has ended, but for those of load balancers."""
        self.begins_trace: Callable[[Request], None] | None = None
        """Has it traced, if this edge traces: who is known by a key."""
        self._notes_clients = False
        self._surface = Surface(extra_paths)
        self._own: dict[str, Handler] = {
            surface.ROOT: self._root,
            surface.ALIVE: self._alive,
            surface.ALIVE_ALIAS: self._alive,
            surface.READY: self._ready,
            surface.MODELS: self._models,
            surface.MODEL: self._model,
        }

    def use(
        self, headers: AnswerHeaders, extra_paths: Iterable[str], *, notes_clients: bool
    ) -> None:
        """From now on so."""
        self._headers, self._surface = headers, Surface(extra_paths)
        self._notes_clients = notes_clients

    async def handle(self, request: Request) -> Response:
        """Answer any request."""
        found = self._surface.find(request.method, request.path)
        dialect = surface.dialect(found, request.headers)
        journey = self._headers.begin(request, dialect)
        if isinstance(found, Found):
            journey.path = found.entry.path
        if self._notes_clients:
            journey.client = request.writer.client
        preflight, response = self._headers.preflight(request), None
        try:
            response = preflight or await self._answer(request, found, dialect, journey.request_id)
        finally:
            if journey.path not in ASKED_ALL_THE_TIME:
                self._tell(journey, response)
        if not response.is_out:
            complete(journey, response)
            response.closes = self.draining or self._leaving()  # another edge may take the caller
        return response

    async def _answer(
        self, request: Request, found: Found | Problem, dialect: Dialect, request_id: str
    ) -> Response:
        try:
            if isinstance(found, Problem):
                return respond(found, request_id, dialect)
            if not found.entry.open:
                self._proxy.authorize(request)
                if self.begins_trace is not None:
                    self.begins_trace(request)
            handler = self._own.get(found.entry.path, self._proxy.serve)
            return await handler(request, found, request_id)
        except RefusedError as error:
            return respond(error.problem, request_id, dialect)
        except ConnectionError:
            raise
        except Exception:  # a bug must not reach the caller as HTML, nor stop the edge
            log.exception("request failed", extra={"fields": {"request_id": request_id}})
            return respond(problems.internal(), request_id, dialect)

    def refuse(self, problem: Problem) -> Response:
        """Answer what never became a request."""
        response = answers.refuse(problem)
        self._tell(Journey(response.headers["x-request-id"], clock.now_s()), response)
        return response

    def _tell(self, journey: Journey, response: Response | None) -> None:
        """A request has ended; without a response its caller has left."""
        ended = journey.record
        if ended is None:
            status, code = (response.status, response.code) if response else (0, "")
            ending = unrouted.ending(status, code)
            ended = unrouted.record(journey, ending, clock.now_s(), clock.wall_s())
        for told in self.finished:
            told(ended)

    def ready(self) -> tuple[int, bytes]:
        """Whether this edge can serve, if not why: status and body."""
        reason = "" if self._table.ready else "waiting for the first snapshot"
        reason = "draining" if self.draining or self._leaving() else reason
        inflight, queued = self._dispatch.totals()
        body = f'{{"ready":{str(not reason).lower()},"reason":"{reason}",'
        body += f'"open_replicas":{self._table.open_replicas()},'
        body += f'"inflight":{inflight},"queued":{queued}}}'
        return 503 if reason else 200, body.encode()

    def _leaving(self) -> bool:
        """Whether an operator drains it: it serves on, but tells load balancers to leave it. Alone
        it does not: who could take that back is away.
        """
        return self._table.leaving and self._dispatch.mode is Mode.NORMAL

    async def _root(self, _: Request, _found: Found, request_id: str) -> Response:
        body = b'{"service":"trimtab","openai_base_url":"/v1"}'
        return _json(200, body, request_id)

    async def _alive(self, _: Request, _found: Found, request_id: str) -> Response:
        return _json(200, ALIVE_BODY, request_id)

    async def _ready(self, _: Request, _found: Found, request_id: str) -> Response:
        return _json(*self.ready(), request_id)

    async def _models(self, request: Request, found: Found, request_id: str) -> Response:
        dialect = surface.dialect(found, request.headers)
        seen = models.visible(self._table.targets, request.caller)
        if dialect is Dialect.ANTHROPIC:
            body = anthropic.model_list([target.name for target in seen])
        else:
            body = openai.model_list(map(self._card, seen))
        return _json(200, body, request_id, dialect)

    async def _model(self, request: Request, found: Found, request_id: str) -> Response:
        dialect = surface.dialect(found, request.headers)
        target = models.find(self._table.targets, request.caller, found.id)
        if isinstance(target, Problem):
            raise RefusedError(target)
        theirs = dialect is Dialect.ANTHROPIC
        card = anthropic.model_card(target.name) if theirs else self._card(target)
        return _json(200, openai.encode(card), request_id, dialect)

    def _card(self, target: Target) -> dict[str, object]:
        return models.card(target, self._table.routes(target.pool.name), self._created)


def admin_app(endpoint: Endpoint, metrics: EdgeMetrics, kept: Decisions) -> web.Application:
    """The operators' address: metrics, health, and why a request went as it did."""

    async def scrape(request: web.Request) -> web.Response:
        metrics.refresh()
        accept = request.headers.get("accept", "")
        text = await asyncio.to_thread(metrics.render, accept)  # tens of ms with many series
        return web.Response(body=text, headers={"content-type": telemetry.content_type(accept)})

    async def alive(_request: web.Request) -> web.Response:
        return web.Response(body=ALIVE_BODY, content_type="application/json")

    async def ready(_request: web.Request) -> web.Response:
        status, body = endpoint.ready()
        return web.Response(status=status, body=body, content_type="application/json")

    async def decision(request: web.Request) -> web.Response:
        record = kept.get(request.match_info["request_id"])
        if record is None:
            raise web.HTTPNotFound(text=NO_DECISION)
        return _plain_json(decisions.view(record))

    async def latest(request: web.Request) -> web.Response:
        try:
            limit = int(request.query.get("limit", DECISIONS_SHOWN))
        except ValueError as error:
            raise web.HTTPBadRequest(text="limit must be a number.\n") from error
        limit = max(0, min(limit, DECISIONS_SHOWN_MAX))
        records = kept.newest(limit, request.query.get("outcome", ""))
        return await asyncio.to_thread(_list, records)

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/decisions", latest)
    app.router.add_get("/decisions/{request_id}", decision)
    return app


def _list(records: Sequence[Record]) -> web.Response:
    # one after the other: as dicts a thousand take 5 MB
    parts = [openai.encode(decisions.view(record)) for record in records]
    return web.Response(body=b"[%b]" % b",".join(parts), content_type="application/json")


def _plain_json(value: object) -> web.Response:
    return web.Response(body=openai.encode(value), content_type="application/json")


def _json(status: int, body: bytes, request_id: str, dialect: Dialect = Dialect.OPENAI) -> Response:
    headers = {"content-type": "application/json", **envelopes.ids(dialect, request_id)}
    return Response(status, body, headers)

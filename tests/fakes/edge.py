"""A real edge inside the test's process, fed by hand instead of by a control plane."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from edge import tracing, ways
from edge.admission import Admission
from edge.answers import AnswerHeaders
from edge.core import openai
from edge.core.dispatch import Dispatch
from edge.core.outside import Target
from edge.core.table import RoutingTable
from edge.http.request import Request
from edge.http.response import Response
from edge.http.server import Server, serving
from edge.metrics import EdgeMetrics
from edge.proxy import Proxy
from edge.server import Endpoint, admin_app
from trimtab.model import (
    ApiKey,
    Credit,
    Credits,
    EdgePolicy,
    EdgeUpdate,
    Pool,
    Route,
    Serving,
    Snapshot,
)
from trimtab.runtime import clock
from trimtab.runtime.listener_tls import ListenerTls
from trimtab.runtime.otlp_settings import Otlp
from trimtab.runtime.tasks import TaskRunner

KEY = "sk-test-0123456789abcdef"
MODEL = "demo"


def routes(urls: Sequence[str], pool: str = MODEL) -> tuple[Route, ...]:
    """Open routes r0, r1, … to these URLs."""
    return tuple(
        Route(f"r{i}", pool, "node", url, MODEL, Serving.OPEN, "ready", 4096)
        for i, url in enumerate(urls)
    )


@dataclass(slots=True)
class Exchange:
    """One request as the edge saw it; no status while it runs, or when its caller left."""

    path: str
    came_s: float
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the answer."""
    ended_s: float = 0.0


class OverheardEndpoint(Endpoint):
    """The endpoint, and what was asked of it."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.exchanges: list[Exchange] = []

    async def handle(self, request: Request) -> Response:
        """Answer any request."""
        exchange = Exchange(request.path, clock.now_s())
        self.exchanges.append(exchange)
        response = await super().handle(request)
        exchange.status, exchange.headers = response.status, response.headers
        exchange.ended_s = clock.now_s()
        return response


@dataclass(slots=True)
class EdgeUnderTest:
    """The edge's parts, and pushes to it."""

    url: str
    admin_url: str
    admission: Admission
    dispatch: Dispatch
    table: RoutingTable
    endpoint: OverheardEndpoint
    proxy: Proxy
    metrics: EdgeMetrics
    callers: Server
    snapshot: Snapshot = field(default_factory=Snapshot)
    version: int = 0

    @property
    def exchanges(self) -> list[Exchange]:
        """What was asked of it, in order."""
        return self.endpoint.exchanges

    def push(self, body: Snapshot | Credits) -> None:
        """One update, which must be taken."""
        self.version += 1
        assert self.admission.apply(EdgeUpdate(1, self.version, self.version, body)) == ""
        if isinstance(body, Snapshot):
            self.snapshot = body

    def set_serving(self, replica: str, serving: Serving) -> None:
        """Change what may be done with one replica."""
        changed = tuple(
            replace(route, serving=serving) if route.replica == replica else route
            for route in self.snapshot.routes
        )
        self.push(replace(self.snapshot, routes=changed))

    def inflight(self, replica: str) -> int:
        """Attempts on a replica now."""
        return self.dispatch.replica(replica).inflight


@asynccontextmanager
async def running_edge(
    urls: Sequence[str],
    slots: int = 8,
    policy: EdgePolicy | None = None,
    tls: ListenerTls | None = None,
    fallbacks: Mapping[str, Target] | None = None,
    headers: AnswerHeaders | None = None,
    extra_paths: Sequence[str] = (),
    otlp: Otlp | None = None,
) -> AsyncIterator[EdgeUnderTest]:
    """An edge that knows replicas r0, r1, … and one key."""
    table = RoutingTable()
    dispatch = Dispatch(table, random.Random(0))
    admission = Admission(table, dispatch)
    metrics = EdgeMetrics(dispatch)
    async with (
        ways.connect("", fallbacks or {}, metrics) as leading,
        TaskRunner() as runner,
        AsyncExitStack() as stack,
    ):
        proxy = Proxy(table, dispatch, admission, leading, metrics)
        endpoint = OverheardEndpoint(
            proxy, table, dispatch, headers or AnswerHeaders(), extra_paths
        )
        endpoint.finished.append(metrics.turned_away)
        await stack.enter_async_context(tracing.exported(otlp, endpoint, table, metrics))
        callers = await stack.enter_async_context(serving(endpoint.handle, endpoint.refuse))
        server = await asyncio.get_running_loop().create_server(
            callers, "127.0.0.1", 0, ssl=tls.context if tls else None
        )
        runner.forever("pump", admission.pump_forever())
        runner.forever("keep-alive", proxy.keeper.run())
        port = server.sockets[0].getsockname()[1]
        admin = web.AppRunner(admin_app(endpoint, metrics, proxy.decisions), access_log=None)
        await admin.setup()
        await web.TCPSite(admin, "127.0.0.1", 0).start()
        admin_port = admin.addresses[0][1]
        edge = EdgeUnderTest(
            url=f"http{'s' if tls else ''}://127.0.0.1:{port}",
            admin_url=f"http://127.0.0.1:{admin_port}",
            admission=admission,
            dispatch=dispatch,
            table=table,
            endpoint=endpoint,
            proxy=proxy,
            metrics=metrics,
            callers=callers,
        )
        keys = (ApiKey(openai.key_hash(KEY), "test"),)
        known = routes(urls)
        edge.push(Snapshot((Pool(MODEL, ("alias",)),), known, keys, policy or EdgePolicy()))
        edge.push(Credits(tuple(Credit(route.replica, slots) for route in known)))
        try:
            yield edge
        finally:
            server.close()
            await admin.cleanup()

"""What an edge tells by OTLP: traces of finished requests, and its metrics.

Spans are made off the path of requests, a few at a time, and the loop serves others in between. Not
in a thread: it would hold the interpreter for longer than that. Rule: no failure in here reaches a
request. Imported by edges that export, as it takes time and memory that others need not pay.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from urllib.parse import urlsplit

from edge.core import spans
from edge.core.decisions import Record
from edge.core.spans import Told
from edge.core.table import RoutingTable
from edge.metrics import EdgeMetrics
from edge.server import Endpoint
from edge.tracing import BATCH, Tracer
from trimtab.runtime import clock, otlp
from trimtab.runtime.otlp import Exporter
from trimtab.runtime.otlp_settings import Otlp
from trimtab.runtime.otlp_spans import Batch
from trimtab.runtime.tasks import TaskRunner

SLICE = 16  # requests whose spans are made in one go: half a millisecond
PERIOD_S = 1.0
LAST_S = 2.0  # to send what is left when the edge ends


class Traces:
    """Takes what a tracer keeps to the exporter."""

    def __init__(
        self, tracer: Tracer, exporter: Exporter, table: RoutingTable, metrics: EdgeMetrics
    ) -> None:
        self._tracer = tracer
        self._exporter = exporter
        self._table = table
        self._metrics = metrics

    async def run(self) -> None:
        """Once a period, or as soon as there is a batch."""
        tracer = self._tracer
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await tracer.full.wait()
            tracer.full.clear()
            await self._exporter.safely("traces", self.flush())

    async def flush(self) -> None:
        """Send all that is kept."""
        kept = self._tracer.kept
        while kept:
            records = [kept.popleft() for _ in range(min(BATCH, len(kept)))]
            batch = self._exporter.batch()
            await self._fill(batch, records)
            await self._exporter.traces(batch)

    async def _fill(self, batch: Batch, records: Sequence[Record]) -> None:
        routes = self._table.snapshot.routes
        addresses = {route.replica: _address(route.url) for route in routes}
        for begin in range(0, len(records), SLICE):
            wall_s = clock.wall_s() - clock.now_s()
            for record in records[begin : begin + SLICE]:
                if record.trace is not None:
                    told = Told(record.trace, wall_s, addresses)
                    for span in spans.of(record, told):
                        batch.add(span)
                    if record.pool:
                        self._metrics.model(record.pool).exemplify(record, told.ids, wall_s)
            await asyncio.sleep(0)


@asynccontextmanager
async def exporting(
    settings: Otlp, endpoint: Endpoint, table: RoutingTable, metrics: EdgeMetrics
) -> AsyncIterator[None]:
    """For as long as the edge runs."""
    count = metrics.process.exported
    tracer = Tracer(settings, lambda: count("traces", "dropped", 1))
    endpoint.begins_trace = tracer.begin
    endpoint.finished.append(tracer.ended)
    async with (
        otlp.connect(settings, random.SystemRandom(), count) as exporter,
        TaskRunner() as runner,
    ):
        traces = Traces(tracer, exporter, table, metrics)
        runner.forever("traces", traces.run())
        runner.forever("OTLP metrics", exporter.metrics_forever(metrics))
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_S):
                    await exporter.safely("traces", traces.flush())


@lru_cache(4096)
def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

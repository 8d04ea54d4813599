"""Which requests are traced, and what is kept of them until it is exported (edge/exporting).

Rules: a request costs what its place in a trace takes to find, and its record to keep; what waits
is bounded, what is beyond that is dropped and counted. Who is not known by a key is not traced, and
how many are traced that nobody asked for is bounded, too.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from edge.core import headers
from edge.core.decisions import Record
from edge.core.table import RoutingTable
from edge.http.request import Request
from edge.metrics import EdgeMetrics
from edge.server import Endpoint
from trimtab import trace
from trimtab.runtime.otlp_settings import Otlp

KEPT_MAX = 4_096  # requests that wait for their export
BATCH = 512  # requests an export: half a megabyte
ODD_PER_S = 10


def exported(
    otlp: Otlp | None, endpoint: Endpoint, table: RoutingTable, metrics: EdgeMetrics
) -> AbstractAsyncContextManager[None]:
    """Have an endpoint's requests traced, and that and the metrics exported, if that is wanted."""
    if otlp is None:
        return nullcontext()
    from edge.exporting import exporting  # noqa: PLC0415  20 ms

    return exporting(otlp, endpoint, table, metrics)


class Tracer:
    """Begins traces, and keeps the records of what is to be told."""

    def __init__(self, otlp: Otlp, dropped: Callable[[], None]) -> None:
        self._ratio = otlp.ratio
        self._slow_s = otlp.slow_s
        self._dropped = dropped
        self._chance = random.Random()  # noqa: S311 - an id is no secret
        self._odd_left, self._odd_since_s = ODD_PER_S, 0.0
        self.kept: deque[Record] = deque()
        self.full = asyncio.Event()

    def begin(self, request: Request) -> None:
        """A request is to be served."""
        journey, lot = request.journey, self._chance.getrandbits(trace.LOT_BITS)
        said = headers.trace_context(request.headers)
        journey.trace = trace.begin(*said, lot, self._ratio, request.method)
        journey.trace_id = journey.trace.trace_id

    def ended(self, record: Record) -> None:
        """It is over."""
        if record.trace is None or not (record.trace.sampled or self._stands_out(record)):
            return
        if len(self.kept) >= KEPT_MAX:
            self._dropped()
            return
        self.kept.append(record)
        if len(self.kept) == BATCH:
            self.full.set()

    def _stands_out(self, record: Record) -> bool:
        """Whether to tell of it though it is not sampled; a bad hour has too many for all."""
        first_s = record.ended_s if record.first_byte_s is None else record.first_byte_s
        if not record.odd and first_s - record.since_s < self._slow_s:
            return False
        if record.ended_s - self._odd_since_s >= 1.0:
            self._odd_left, self._odd_since_s = ODD_PER_S, record.ended_s
        self._odd_left -= 1
        return self._odd_left >= 0

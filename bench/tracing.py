"""What a trace costs a request, in CPU time: `python -m bench.tracing`.

The least of many runs, of the edge's own code in one thread: what is on the path of the request,
and what is done when it is over (spans, encoded, the export's bytes). Off: the branches alone.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from edge.core import headers
from edge.core.decisions import Attempt, Ending, Notes, Record
from edge.core.headers import Journey
from edge.core.table import RoutingTable
from edge.exporting import Traces
from edge.http.request import Request
from edge.metrics import EdgeMetrics
from edge.tracing import BATCH, Tracer
from trimtab.model import Outcome, Urgency
from trimtab.runtime import clock
from trimtab.runtime.otlp import Exporter
from trimtab.runtime.otlp_settings import Otlp

RUNS = 40
CALLER = {
    "host": "edge",
    "authorization": "Bearer sk-x",
    "content-type": "application/json",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


class Nowhere:
    """A receiver that takes everything."""

    async def send(self, _signal: str, request: Any) -> Any:
        """As the wire would have it, without the wire."""
        request.SerializeToString()
        return ExportTraceServiceResponse()


def least_us(work: Callable[[], object], number: int) -> float:
    """CPU time of one of `number` that `work` does, at best."""
    best_s = float("inf")
    for _ in range(RUNS):
        began_s = clock.cpu_s()
        work()
        best_s = min(best_s, clock.cpu_s() - began_s)
    return 1e6 * best_s / number


def record(number: int, journey: Journey) -> Record:
    """An ordinary request, over."""
    attempt = Attempt(
        f"gpu{number % 4}-8000", 10.0, 11.5, Outcome.OK, "", 200, (), True, None, number % 900, 777
    )
    return Record(
        *(f"req_{number:032x}", "demo", "imaging", Urgency.DEFAULT, 1, 10.0),
        *(Notes(None, [attempt]), 10.2, 11.5, Ending("ok", 200)),
        path="/v1/chat/completions",
        stream=True,
        model="demo",
        trace=journey.trace,
    )


def path(tracer: Tracer | None, requests: list[Request]) -> None:
    """What tracing adds on the way of a request."""
    for request in requests:
        journey = request.journey = Journey("req_1")
        if tracer is not None:
            tracer.begin(request)
        journey.headers(1.0)
        headers.to_engine(CALLER, "req_1", 1, journey.trace)


async def main() -> None:
    """Print what it costs."""
    metrics = EdgeMetrics()
    tracer = Tracer(Otlp("http://nowhere:1"), lambda: None)
    parts: list[Any] = [None] * 2
    requests = [Request("POST", "/v1/chat/completions", CALLER, *parts) for _ in range(BATCH)]
    off_us = least_us(partial(path, None, requests), BATCH)
    on_us = least_us(partial(path, tracer, requests), BATCH)
    numbers = itertools.count()
    exporter = Exporter(Nowhere(), Otlp("http://nowhere:1"), _NoDice(), lambda *_: None)
    traces = Traces(tracer, exporter, RoutingTable(), metrics)
    after_us = float("inf")
    for _ in range(RUNS):
        records = [record(next(numbers), request.journey) for request in requests]
        began_s = clock.cpu_s()
        for each in records:
            tracer.ended(each)
        await traces.flush()
        after_us = min(after_us, 1e6 * (clock.cpu_s() - began_s) / BATCH)
    print(f"on the path of a request: {on_us - off_us:.1f} us beside {off_us:.1f} us without")
    print(f"when it is over: {after_us:.1f} us (two spans, encoded, of one export of {BATCH})")
    print(f"together: {on_us - off_us + after_us:.1f} us")
    nothing: Tracer | None = None
    many = range(100_000)
    loop_us = least_us(lambda: [None for _ in many], len(many))
    branch_us = least_us(lambda: [nothing is not None for _ in many], len(many))
    print(f"off: 3 branches of {branch_us - loop_us:.3f} us")


class _NoDice:
    def random(self) -> float:
        """Never asked."""
        return 0.5


if __name__ == "__main__":
    asyncio.run(main())

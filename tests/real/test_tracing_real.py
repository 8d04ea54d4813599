"""vLLM's own span joins the trace: it hangs below the attempt that asked for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fakes.edge import KEY, running_edge
from tests.fakes.edge import MODEL as POOL
from tests.fakes.otlp import grpc_receiver
from tests.fakes.wait import until
from tests.real.engine import MODEL, TRACES_PORT, RealEngine
from trimtab.runtime.otlp_settings import Otlp

PARENT = "b7ad6b7169203331"
WHOLE, STREAM = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(("stream", "trace"), [(False, WHOLE), (True, STREAM)])
async def test_one_trace_from_the_caller_into_vllm(
    engines: tuple[RealEngine, RealEngine], stream: bool, trace: str
) -> None:
    """An engine also sends what it kept of earlier requests, while nobody listened."""
    headers = {"authorization": f"Bearer {KEY}", "traceparent": f"00-{trace}-{PARENT}-01"}
    body: dict[str, Any] = {"model": POOL, "prompt": "hi", "max_tokens": 4, "stream": stream}
    async with (
        grpc_receiver(port=TRACES_PORT) as receiver,
        running_edge([engines[0].url], otlp=Otlp(receiver.url)) as edge,
        aiohttp.ClientSession(headers=headers) as http,
    ):
        routes = tuple(replace(route, served_as=MODEL) for route in edge.snapshot.routes)
        edge.push(replace(edge.snapshot, routes=routes))
        async with http.post(f"{edge.url}/v1/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()

        def ours(name: str) -> list[Span]:
            return [span for span in receiver.named(name) if span.trace_id.hex() == trace]

        await until(lambda: bool(ours("llm_request") and ours(f"text_completion {POOL}")), 30)
    engine, attempt = ours("llm_request")[0], ours(f"text_completion {POOL}")[0]
    assert engine.parent_span_id == attempt.span_id
    assert attempt.start_time_unix_nano <= engine.start_time_unix_nano
    assert engine.end_time_unix_nano <= attempt.end_time_unix_nano + 10**9

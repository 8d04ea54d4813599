"""vLLM's own span joins the trace: it hangs below the attempt that asked for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.fakes.edge import KEY, running_edge
from tests.fakes.edge import MODEL as POOL
from tests.fakes.otlp import grpc_receiver
from tests.fakes.wait import until
from tests.real.engine import MODEL, TRACES_PORT, RealEngine
from trimtab.runtime.otlp_settings import Otlp

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"authorization": f"Bearer {KEY}", "traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_one_trace_from_the_caller_into_vllm(
    engines: tuple[RealEngine, RealEngine], stream: bool
) -> None:
    body: dict[str, Any] = {"model": POOL, "prompt": "hi", "max_tokens": 4, "stream": stream}
    async with (
        grpc_receiver(port=TRACES_PORT) as receiver,
        running_edge([engines[0].url], otlp=Otlp(receiver.url)) as edge,
        aiohttp.ClientSession(headers=HEADERS) as http,
    ):
        routes = tuple(replace(route, served_as=MODEL) for route in edge.snapshot.routes)
        edge.push(replace(edge.snapshot, routes=routes))
        async with http.post(f"{edge.url}/v1/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
        await until(lambda: bool(receiver.named("llm_request")), 30)
        await until(lambda: len(receiver.named(f"text_completion {POOL}")) == 1)
    [engine] = receiver.named("llm_request")
    [attempt] = receiver.named(f"text_completion {POOL}")
    assert {span.trace_id.hex() for span in (engine, attempt)} == {TRACE}
    assert engine.parent_span_id == attempt.span_id
    assert attempt.start_time_unix_nano <= engine.start_time_unix_nano
    assert engine.end_time_unix_nano <= attempt.end_time_unix_nano + 10**9

"""What a real edge counts of real requests, as Prometheus reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.scripted_engine import ScriptedEngine, scripted_engine
from tests.fakes.wait import until
from trimtab.model import Serving

ASK = {"model": MODEL, "prompt": "hello", "max_tokens": 3}
BEARER = {"authorization": f"Bearer {KEY}"}
USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 32},
    "completion_tokens_details": {"reasoning_tokens": 7},
}
WHO = {"model": MODEL, "tenant": "test"}


class Counted:
    """An edge, its engine and a caller."""

    def __init__(
        self, edge: EdgeUnderTest, engine: ScriptedEngine, http: aiohttp.ClientSession
    ) -> None:
        self.edge, self.engine, self.http = edge, engine, http

    async def ask(self, **more: object) -> int:
        """One request; the status of its answer."""
        async with self.http.post(
            f"{self.edge.url}/v1/completions", json=ASK | more, headers=BEARER
        ) as answer:
            await answer.read()
            return answer.status

    async def scrape(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """All series."""
        async with self.http.get(f"{self.edge.admin_url}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        samples = [sample for family in families for sample in family.samples]
        return {(s.name, frozenset(s.labels.items())): s.value for s in samples}

    async def value(self, name: str, **labels: str) -> float | None:
        """One of them."""
        return (await self.scrape()).get((f"trimtab_edge_{name}", frozenset(labels.items())))


@pytest.fixture
async def counted() -> AsyncIterator[Counted]:
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession() as http,
        scripted_engine() as engine,
        running_edge([engine.url]) as edge,
    ):
        engine.usage, engine.tells_usage = USAGE, True
        yield Counted(edge, engine, http)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer(counted: Counted, stream: bool) -> None:
    assert await counted.ask(stream=stream) == 200
    assert await counted.value("requests_total", **WHO, code="200", outcome="ok") == 1
    for kind, count in (("input", 40), ("cached", 32), ("output", 12), ("reasoning", 7)):
        assert await counted.value("tokens_total", **WHO, type=kind) == count
    streamed = {"time_to_first_token": 1, "time_per_output_token": 1, "inter_token_latency": 11}
    for name, count in {"request_duration": 1, "overhead": 1, "queue_wait": 1}.items():
        assert await counted.value(f"{name}_seconds_count", model=MODEL) == count
    for name, count in streamed.items():
        assert await counted.value(f"{name}_seconds_count", model=MODEL) == stream * count
    assert await counted.value("upstream_attempts_total", replica="r0", result="ok") == 1
    assert await counted.value("retry_budget_ratio", model=MODEL) == 1.0


async def test_who_runs_and_who_waits(counted: Counted) -> None:
    counted.engine.last.clear()
    slots = counted.edge.table.credits["r0"].slots
    of = {"model": MODEL, "class": "default"}
    async with asyncio.TaskGroup() as group:
        for _ in range(slots + 2):
            group.create_task(counted.ask())
        await until(lambda: counted.edge.dispatch.totals() == (slots, 2))
        assert await counted.value("queue_depth", **of) == 2
        assert await counted.value("requests_in_flight", **of) == slots + 2
        counted.engine.last.set()
    assert await counted.value("queue_depth", **of) == 0
    assert await counted.value("requests_in_flight", **of) == 0


async def test_refusals_say_why(counted: Counted) -> None:
    counted.edge.set_serving("r0", Serving.CLOSED)
    assert await counted.ask() == 503
    assert await counted.value("shed_total", model=MODEL, reason="no_replica") == 1
    assert await counted.ask(model="no such model") == 404
    async with counted.http.post(f"{counted.edge.url}/v1/completions", json=ASK) as answer:
        assert answer.status == 401
    assert await counted.value("rejected_total", code="404") == 1
    assert await counted.value("rejected_total", code="401") == 1
    series = await counted.scrape()
    assert sum(v for (name, _), v in series.items() if name == "trimtab_edge_requests_total") == 1

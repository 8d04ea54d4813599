"""Why a request went as it did, asked of a real edge by the id its caller was given."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.wait import until
from trimtab.model import Credit, Credits, Outcome, PoolPace, Serving
from trimtab.runtime import clock

CANARY = "canary in a coal mine"
ASK = {"model": MODEL, "prompt": CANARY, "max_tokens": 50}


@pytest.fixture
async def engine() -> AsyncIterator[SimEngine]:
    async with sim_engine() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        yield session


async def told(http: aiohttp.ClientSession, edge: EdgeUnderTest, path: str) -> Any:
    async with http.get(f"{edge.admin_url}/decisions{path}") as answer:
        assert answer.status == 200
        text = await answer.text()
        assert CANARY not in text
        assert KEY not in text
        return await answer.json()


async def ended(http: aiohttp.ClientSession, edge: EdgeUnderTest) -> dict[str, Any]:
    """The newest record; a stream's comes just after its last byte."""
    async with asyncio.timeout(10):
        while not (found := await told(http, edge, "?limit=1")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    newest: dict[str, Any] = found[0]
    return newest


async def test_a_retried_request_shows_both_attempts_and_why(
    http: aiohttp.ClientSession, engine: SimEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with sim_engine() as other, running_edge([engine.url, other.url]) as edge:
        await engine.fault(reject=True)
        edge.dispatch.replica("r1").suspicion.observe(Outcome.SOFT, clock.now_s())  # so: r0 first
        async with http.post(f"{edge.url}/v1/completions", json=ASK) as answer:
            assert answer.status == 200
            request_id = answer.headers["x-request-id"]
        record = await told(http, edge, f"/{request_id}")
    first, second = record["attempts"]
    assert (first["replica"], first["outcome"], first["status"]) == ("r0", "overload", 503)
    assert (second["replica"], second["outcome"], second["status"]) == ("r1", "ok", 200)
    calm, doubted = first["among"]
    assert calm["score"] == 0.0
    assert doubted["penalty_slots"] > 3.0
    assert [c["slots"] for c in second["among"]] == [0, 8], "r0 said that it has no room"
    assert first["ended_ms"] <= second["picked_ms"] <= second["ended_ms"] <= record["ended_ms"]
    assert (record["tenant"], record["pool"]) == ("test", MODEL)
    assert (record["outcome"], record["status"], record["code"]) == ("ok", 200, "")
    (line,) = [r for r in caplog.records if r.name == "edge.failures"]
    assert vars(line)["fields"]["request_id"] == request_id


async def test_a_refused_request_shows_what_was_predicted_and_what_it_might_have_waited(
    http: aiohttp.ClientSession, engine: SimEngine
) -> None:
    await engine.fault(freeze=True)
    async with running_edge([engine.url], slots=1) as edge, asyncio.TaskGroup() as group:
        edge.push(Credits((Credit("r0", 1),), (PoolPace(MODEL, 1.0),)))

        async def ask() -> None:
            async with http.post(f"{edge.url}/v1/completions", json=ASK):
                pass

        callers = [group.create_task(ask()) for _ in range(2)]
        await until(lambda: edge.dispatch.totals() == (1, 1))
        headers = {"x-stainless-read-timeout": "2"}
        async with http.post(f"{edge.url}/v1/completions", json=ASK, headers=headers) as answer:
            assert answer.status == 503
            request_id = answer.headers["x-request-id"]
            retry_after_ms = int(answer.headers["retry-after-ms"])
        record = await told(http, edge, f"/{request_id}")
        assert record["attempts"] == []
        assert record["wait_budget_ms"] == 1500
        assert record["predicted_wait_ms"] > 1500
        assert (record["status"], record["code"]) == (503, "server_is_overloaded")
        assert record["retry_after_ms"] == retry_after_ms
        for caller in callers:
            caller.cancel()


async def test_nobody_to_ask_and_a_broken_stream_are_told(
    http: aiohttp.ClientSession, engine: SimEngine
) -> None:
    async with running_edge([engine.url]) as edge:
        await engine.fault(error_in_stream=2)
        async with http.post(f"{edge.url}/v1/completions", json=ASK | {"stream": True}) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        broken = await ended(http, edge)
        assert broken["request_id"] == answer.headers["x-request-id"]
        assert (broken["status"], broken["outcome"]) == (200, "replica_error")
        assert 0 <= broken["first_byte_ms"] <= broken["attempts"][0]["ended_ms"]
        edge.set_serving("r0", Serving.CLOSED)
        async with http.post(f"{edge.url}/v1/completions", json=ASK) as answer:
            assert answer.status == 503
        (closed,) = await told(http, edge, "?limit=1&outcome=shed")
        assert closed["code"] == "no_replica_available"
        assert closed["predicted_wait_ms"] is None
        assert [r["outcome"] for r in await told(http, edge, "")] == ["shed", "replica_error"]


async def test_what_is_not_there_and_what_is_not_served(
    http: aiohttp.ClientSession, engine: SimEngine
) -> None:
    async with running_edge([engine.url]) as edge:
        for path, status in (("/req_0", 404), ("?limit=x", 400), ("?limit=-1", 200)):
            async with http.get(f"{edge.admin_url}/decisions{path}") as answer:
                assert answer.status == status
        async with http.get(f"{edge.url}/decisions") as answer:
            assert answer.status == 404, "not for clients"

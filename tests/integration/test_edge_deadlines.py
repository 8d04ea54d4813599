"""Deadlines at the edge: whose timer ended a request is said, and its slot is free at once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import openai
import pytest

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.scripted_engine import ScriptedEngine, scripted_engine
from tests.fakes.wait import until
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner


@dataclass(slots=True)
class Case:
    """One edge, one engine, one caller."""

    edge: EdgeUnderTest
    engine: ScriptedEngine
    http: aiohttp.ClientSession

    def limit(self, **limits: Any) -> None:
        """Of the pool."""
        pools = tuple(replace(pool, **limits) for pool in self.edge.snapshot.pools)
        self.edge.push(replace(self.edge.snapshot, pools=pools))

    async def ask(self, *, stream: bool, headers: Mapping[str, str] | None = None) -> Any:
        """Status, headers, body: as far as it came."""
        body = {"model": MODEL, "prompt": "hi", "stream": stream}
        url = f"{self.edge.url}/v1/completions"
        async with self.http.post(url, json=body, headers=headers) as answer:
            text = b""
            try:
                async for chunk in answer.content.iter_any():
                    text += chunk
            except aiohttp.ClientPayloadError:
                text += b"<cut>"
            return answer.status, answer.headers, text.decode()

    async def record(self) -> Any:
        """The newest decision record."""
        async with self.http.get(f"{self.edge.admin_url}/decisions") as answer:
            return (await answer.json())[0]


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    async with (
        scripted_engine() as engine,
        running_edge([engine.url]) as edge,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
    ):
        yield Case(edge, engine, http)


@pytest.mark.parametrize(
    ("limits", "headers", "whose"),
    [
        ({"request_timeout_ms": 200}, {}, "this model allows"),
        ({"request_timeout_ms": 200}, {"x-stainless-timeout": "60"}, "this model allows"),
        ({}, {"x-stainless-read-timeout": "0.2"}, "your client allows"),
    ],
)
async def test_a_plain_answer_that_comes_too_late_is_given_up(
    case: Case, limits: dict[str, int], headers: dict[str, str], whose: str
) -> None:
    case.limit(**limits)
    case.engine.first.clear()
    status, sent, text = await case.ask(stream=False, headers=headers)
    error = json.loads(text)["error"]
    assert (status, error["code"], sent["x-should-retry"]) == (504, "upstream_timeout", "false")
    assert whose in error["message"]
    assert "0.2 s" in error["message"]
    assert case.edge.inflight("r0") == 0  # before the caller heard
    await until(lambda: case.engine.left == 1)
    record = await case.record()
    assert (record["outcome"], record["attempts"][0]["fault"]) == ("timeout", "late")
    assert record["attempts"][0]["outcome"] == "client"  # nobody is to blame


async def test_an_sdk_hears_of_it_before_its_own_timer_ends(case: Case) -> None:
    case.engine.first.clear()
    async with openai.AsyncOpenAI(
        base_url=f"{case.edge.url}/v1", api_key=KEY, timeout=3.0, max_retries=0
    ) as client:
        with pytest.raises(
            openai.InternalServerError, match="all that your client allows"
        ) as caught:
            await client.completions.create(model=MODEL, prompt="hi")
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")


async def test_a_stream_over_its_pools_time_ends_with_an_error(case: Case) -> None:
    case.limit(request_timeout_ms=300)
    case.engine.last.clear()
    status, _, text = await case.ask(stream=True)
    assert status == 200
    assert "upstream_timeout" in text
    assert "what you have is incomplete" in text
    assert text.endswith("<cut>")
    assert case.edge.inflight("r0") == 0


async def test_a_silent_stream_names_the_idle_timer(case: Case) -> None:
    case.limit(idle_timeout_ms=200)
    case.engine.first.clear()
    status, _, text = await case.ask(stream=True)
    message = json.loads(text)["error"]["message"]
    assert (status, "0.2 s, the idle timeout" in message) == (504, True)


async def test_a_streams_read_timeout_does_not_bound_the_whole(case: Case) -> None:
    case.engine.last.clear()
    asked_s = clock.now_s()
    async with TaskRunner() as runner:
        patience = {"x-stainless-read-timeout": "0.1"}
        asking = runner.once("ask", case.ask(stream=True, headers=patience))
        await until(lambda: clock.now_s() > asked_s + 0.2)
        case.engine.last.set()
        _, _, text = await asking
    assert text.endswith("data: [DONE]\n\n")

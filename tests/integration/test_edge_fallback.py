"""The external fallback: for whom the fleet would refuse, and for nobody else."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from edge.core.openai import key_hash
from edge.core.outside import Target
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.scripted_engine import ScriptedEngine, scripted_engine
from tests.fakes.wait import until
from trimtab.model import ApiKey, EdgePolicy, Serving
from trimtab.runtime.tasks import TaskRunner

LEAVES = "sk-test-may-leave-0123456"
SECRET = "sk-of-the-other-side"


@dataclass(slots=True)
class Case:
    """A fleet of one engine, and an API elsewhere."""

    edge: EdgeUnderTest
    engine: ScriptedEngine
    there: ScriptedEngine
    http: aiohttp.ClientSession

    async def ask(
        self, key: str = LEAVES, *, stream: bool = False, once: str = "", **more: Any
    ) -> Any:
        """Status, mark of who served it, body."""
        body = {"model": MODEL, "prompt": "hi", "stream": stream, **more}
        headers = {"authorization": f"Bearer {key}", "x-stainless-read-timeout": "30"}
        headers |= {"idempotency-key": once} if once else {}
        url = f"{self.edge.url}/v1/completions"
        async with self.http.post(url, json=body, headers=headers) as answer:
            text = b""
            try:
                async for chunk in answer.content.iter_any():
                    text += chunk
            except aiohttp.ClientPayloadError:
                text += b"<cut>"
            return answer.status, answer.headers.get("x-trimtab-served-by"), text.decode()

    async def record(self) -> Any:
        """The newest decision record."""
        async with self.http.get(f"{self.edge.admin_url}/decisions") as answer:
            return (await answer.json())[0]

    def counted(self, result: str) -> float:
        """What the metric says."""
        sample = self.edge.metrics.fallbacks.labels(MODEL, result)
        return sum(metric.samples[0].value for metric in sample.collect())


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    async with scripted_engine("ours") as engine, scripted_engine("theirs") as there:
        target = Target(f"{there.url}/api/v1/", "their-model", 1, SECRET)
        policy = EdgePolicy(head_hold_ms=100, queue_wait_ms=300)
        async with (
            running_edge([engine.url], 1, policy, fallbacks={MODEL: target}) as edge,
            aiohttp.ClientSession() as http,
        ):
            leaves = ApiKey(key_hash(LEAVES), "leaver", fallback=True)
            edge.push(replace(edge.snapshot, keys=(*edge.snapshot.keys, leaves)))
            yield Case(edge, engine, there, http)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_fleet_would_refuse_is_answered_elsewhere(case: Case, stream: bool) -> None:
    case.edge.set_serving("r0", Serving.CLOSED)
    status, served_by, text = await case.ask(stream=stream, priority=-9)
    assert (status, served_by) == (200, "fallback")
    assert "theirs-1" in text
    assert f'"{MODEL}"' in text  # the name that it was asked by
    assert case.there.paths == ["/api/v1/completions"]
    assert case.there.asked == [{"model": "their-model", "prompt": "hi", "stream": stream}]
    sent = case.there.headers[0]
    assert sent["authorization"] == f"Bearer {SECRET}"
    assert LEAVES not in str(sent)
    assert not [name for name in sent if name.startswith("x-stainless")]
    assert case.counted("answered") == 1
    record = await case.record()
    assert (record["outcome"], record["outside"], len(record["attempts"])) == ("ok", True, 1)
    assert record["attempts"][0]["replica"] == "fallback"


async def test_what_is_replayed_stays_marked(case: Case) -> None:
    case.edge.set_serving("r0", Serving.CLOSED)
    first = await case.ask(stream=True, once="a")
    assert first[1] == "fallback"
    assert await case.ask(stream=True, once="a") == first
    assert len(case.there.asked) == 1


async def test_nobody_leaves_who_did_not_say_so(case: Case) -> None:
    case.edge.set_serving("r0", Serving.CLOSED)
    status, served_by, _ = await case.ask(KEY)
    assert (status, served_by, case.there.asked) == (503, None, [])
    assert (await case.record())["outside"] is False


async def test_while_the_fleet_serves_nobody_leaves(case: Case) -> None:
    assert (await case.ask())[:2] == (200, None)
    case.engine.status = 400
    assert (await case.ask())[0] == 400
    case.engine.status = 500
    assert (await case.ask())[0] == 502
    assert case.there.asked == []


@pytest.mark.parametrize("stream", [False, True])
async def test_who_waits_in_vain_leaves_then(case: Case, stream: bool) -> None:
    case.engine.first.clear()
    async with TaskRunner() as runner:
        first = runner.once("first", case.ask(KEY))
        await until(lambda: case.edge.inflight("r0") == 1)
        # the keeper's comments may have taken the head away: then the mark is a comment
        status, served_by, text = await case.ask(stream=stream)
        assert (status, "theirs-1" in text) == (200, True)
        assert served_by == "fallback" or ": x-trimtab-served-by: fallback" in text
        case.engine.first.set()
        assert (await first)[0] == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_its_failure_is_the_fleets_refusal_in_honest_words(
    case: Case, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    case.edge.set_serving("r0", Serving.CLOSED)
    case.there.status, case.there.error = 401, f"Incorrect API key provided: {SECRET}"
    status, served_by, text = await case.ask(stream=stream)
    error = json.loads(text)["error"]
    assert (status, served_by, error["code"]) == (503, None, "no_replica_available")
    assert "The external fallback was asked and failed, too (401)." in error["message"]
    assert case.counted("failed") == 1
    assert SECRET not in text + caplog.text + str(await case.record())


async def test_a_stream_that_breaks_there_says_so(case: Case) -> None:
    case.edge.set_serving("r0", Serving.CLOSED)
    pools = tuple(replace(pool, idle_timeout_ms=200) for pool in case.edge.snapshot.pools)
    case.edge.push(replace(case.edge.snapshot, pools=pools))
    case.there.last.clear()
    status, served_by, text = await case.ask(stream=True)
    assert (status, served_by) == (200, "fallback")
    assert '"code":"fallback_broke"' in text
    assert text.endswith("<cut>")


async def test_only_so_many_at_once(case: Case) -> None:
    case.edge.set_serving("r0", Serving.CLOSED)
    case.there.first.clear()
    async with TaskRunner() as runner:
        first = runner.once("first", case.ask())
        await until(lambda: case.there.running == 1)
        status, _, text = await case.ask()
        assert (status, "is used as much as it may be" in text) == (503, True)
        case.there.first.set()
        assert (await first)[0] == 200
    assert (await case.ask())[0] == 200  # there is room again


async def test_who_leaves_ends_it_there_too(case: Case) -> None:
    case.edge.set_serving("r0", Serving.CLOSED)
    case.there.first.clear()
    async with TaskRunner() as runner:
        first = runner.once("first", case.ask())
        await until(lambda: case.there.running == 1)
        first.cancel()
        await until(lambda: case.there.left == 1)
    case.there.first.set()
    assert (await case.ask())[0] == 200

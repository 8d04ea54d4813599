"""One Idempotency-Key, one run: the replica sees one request, however often its caller asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import aiohttp
import openai
import pytest

import edge.idempotency
from edge.core.openai import key_hash
from edge.core.replay import Answer, Found, Replays
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.scripted_engine import ScriptedEngine, scripted_engine
from tests.fakes.wait import until
from trimtab.model import ApiKey
from trimtab.runtime.tasks import TaskRunner

OTHER_KEY = "sk-test-another-key-0123"


class Answered(NamedTuple):
    """As its caller sees it."""

    status: int
    body: bytes
    replayed: str | None
    code: str = ""


@dataclass(slots=True)
class Case:
    """One edge, one engine."""

    edge: EdgeUnderTest
    engine: ScriptedEngine
    http: aiohttp.ClientSession

    async def ask(
        self, name: str = "a", prompt: str = "hi", key: str = KEY, *, stream: bool = False
    ) -> Answered:
        headers = {"idempotency-key": name, "authorization": f"Bearer {key}"}
        body = {"model": MODEL, "prompt": prompt, "stream": stream}
        url = f"{self.edge.url}/v1/completions"
        async with self.http.post(url, json=body, headers=headers) as answer:
            text = await answer.read()
            error = (await answer.json()).get("error", {}) if answer.status >= 400 else {}
            replayed = answer.headers.get("x-trimtab-replayed")
            return Answered(answer.status, text, replayed, error.get("code", ""))


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    async with (
        scripted_engine() as engine,
        running_edge([engine.url]) as running,
        aiohttp.ClientSession() as http,
    ):
        keys = (*running.snapshot.keys, ApiKey(key_hash(OTHER_KEY), "test"))
        running.push(replace(running.snapshot, keys=keys))
        yield Case(running, engine, http)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_answer_is_the_first_one(case: Case, stream: bool) -> None:
    first = await case.ask(stream=stream)
    second = await case.ask(stream=stream)
    assert (first.status, first.replayed) == (200, None)
    assert second == first._replace(replayed="true")
    assert len(case.engine.asked) == 1
    assert first.body.endswith(b"[DONE]\n\n") == stream


async def test_what_is_another_request_is_never_replayed(case: Case) -> None:
    await case.ask()
    assert (await case.ask(prompt="ho")).code == "idempotency_key_reused"
    assert (await case.ask(stream=True)).status == 422
    assert (await case.ask(name="b")).replayed is None
    assert (await case.ask(key=OTHER_KEY)).replayed is None  # names are each key's own
    assert len(case.engine.asked) == 3


async def test_a_failure_is_not_replayed(case: Case) -> None:
    case.engine.status = 400
    assert (await case.ask()).status == 400
    case.engine.status = 200
    assert await case.ask() == (200, (await case.ask()).body, None, "")
    assert len(case.engine.asked) == 2


async def test_a_stream_that_broke_is_not_replayed(case: Case) -> None:
    pools = tuple(replace(p, request_timeout_ms=200) for p in case.edge.snapshot.pools)
    case.edge.push(replace(case.edge.snapshot, pools=pools))
    case.engine.last.clear()
    with pytest.raises(aiohttp.ClientPayloadError):
        await case.ask(stream=True)
    case.engine.last.set()
    assert (await case.ask(stream=True)).replayed is None


async def test_a_duplicate_waits_for_the_first(case: Case) -> None:
    case.engine.first.clear()
    async with TaskRunner() as runner:
        asking = [runner.once("ask", case.ask()) for _ in range(3)]
        await until(lambda: case.engine.running == 1)
        case.engine.first.set()
        answers = [await one for one in asking]
    assert sorted(answer.replayed or "" for answer in answers) == ["", "true", "true"]
    assert len({answer.body for answer in answers}) == 1
    assert len(case.engine.asked) == 1


async def test_when_the_first_caller_leaves_the_duplicate_runs(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Found | Answer] = []

    def look(replays: Replays, key: bytes, request: bytes, now_s: float) -> Found | Answer:
        found.append(seen := look_up(replays, key, request, now_s))
        return seen

    look_up = Replays.look
    monkeypatch.setattr(Replays, "look", look)
    case.engine.first.clear()
    async with TaskRunner() as runner:
        first = runner.once("first", case.ask())
        await until(lambda: case.engine.running == 1)
        second = runner.once("second", case.ask())
        await until(lambda: Found.RUNNING in found)
        first.cancel()
        await until(lambda: case.engine.left == 1)  # who leaves frees his slot, key or not
        case.engine.first.set()
        assert await second == (200, (await case.ask()).body, None, "")


async def test_who_waits_too_long_is_told_to_come_back_and_the_sdk_does(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.idempotency, "WAIT_MAX_S", 0.05)
    monkeypatch.setattr("edge.core.problems.IN_USE_S", 0.05)
    case.engine.first.clear()
    async with (
        TaskRunner() as runner,
        openai.AsyncOpenAI(base_url=f"{case.edge.url}/v1", api_key=KEY, max_retries=50) as client,
    ):
        named = {"idempotency-key": "a"}
        asking = [
            runner.once(
                "ask", client.completions.create(model=MODEL, prompt="hi", extra_headers=named)
            )
            for _ in range(2)
        ]
        await until(lambda: case.engine.running == 1)
        in_use = case.edge.metrics.replays.labels("in_use")
        await until(lambda: sum(m.samples[0].value for m in in_use.collect()) > 0)
        case.engine.first.set()
        answers = [await one for one in asking]
    assert answers[0].id == answers[1].id
    assert len(case.engine.asked) == 1

"""A replica dies in the middle of an answer: its caller hears the rest from another one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import openai
import pytest

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.wait import until
from trimtab.model import EdgePolicy, Serving

ROOMY = ("--max-num-seqs", "32")
TOKENS = 60
OPTIONS: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": TOKENS,
    "stream": True,
    "stream_options": {"include_usage": True},
    "extra_body": {"ignore_eos": True, "min_tokens": 3},
}


@dataclass(slots=True)
class Case:
    """An edge before engines r0, r1, …; new requests go to one at a time."""

    edge: EdgeUnderTest
    engines: Sequence[SimEngine]
    client: openai.AsyncOpenAI

    def only(self, *open_now: str) -> None:
        """Let only these replicas get new requests."""
        for number in range(len(self.engines)):
            is_open = f"r{number}" in open_now
            self.edge.set_serving(f"r{number}", Serving.OPEN if is_open else Serving.CLOSED)

    def kill(self, number: int) -> None:
        """As kill -9 does."""
        self.engines[number].process.send_signal(signal.SIGKILL)

    def failovers(self, result: str) -> float:
        """What the metric says."""
        sample = self.edge.metrics.failovers.labels(MODEL, result)
        return sum(metric.samples[0].value for metric in sample.collect())

    async def record(self) -> dict[str, Any]:
        """The newest decision record."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.edge.admin_url}/decisions") as answer,
        ):
            newest: dict[str, Any] = (await answer.json())[0]
            return newest


@asynccontextmanager
async def cases(count: int, policy: EdgePolicy | None = None) -> AsyncIterator[Case]:
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(sim_engine(*ROOMY)) for _ in range(count)]
        urls = [engine.url for engine in engines]
        edge = await stack.enter_async_context(running_edge(urls, slots=32, policy=policy))
        client = openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0)
        yield Case(edge, engines, await stack.enter_async_context(client))


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    async with cases(2) as running:
        yield running


class Listener:
    """One stream, and everything that a client can tell of it."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.error: openai.APIError | None = None

    async def hear(self, client: openai.AsyncOpenAI, prompt: str, chat: bool, **more: Any) -> None:
        options = OPTIONS | more
        create: Any = client.chat.completions.create if chat else client.completions.create
        question: Any = {"messages": [{"role": "user", "content": prompt}]}
        options |= question if chat else {"prompt": prompt}
        try:
            async for chunk in await create(**options):
                self.chunks.append(chunk)
        except openai.APIError as error:
            self.error = error

    @property
    def choices(self) -> list[Any]:
        return [choice for chunk in self.chunks for choice in chunk.choices]

    @property
    def text(self) -> str:
        return "".join(
            (choice.delta.content if hasattr(choice, "delta") else choice.text) or ""
            for choice in self.choices
        )

    @property
    def story(self) -> tuple[Any, ...]:
        """All but what every answer has of its own."""
        roles = [c.delta.role for c in self.choices if hasattr(c, "delta") and c.delta.role]
        ends = [choice.finish_reason for choice in self.choices if choice.finish_reason]
        usage = [
            (chunk.usage.prompt_tokens, chunk.usage.completion_tokens, chunk.usage.total_tokens)
            for chunk in self.chunks
            if chunk.usage
        ]
        seams = len({(chunk.id, chunk.created, chunk.model) for chunk in self.chunks})
        return self.text, roles, ends, usage, seams, self.error


async def undisturbed(client: openai.AsyncOpenAI, prompt: str, chat: bool, **more: Any) -> Listener:
    listener = Listener()
    await listener.hear(client, prompt, chat, **more)
    return listener


@asynccontextmanager
async def listening(
    case: Case, prompts: Sequence[str], chat: bool, **more: Any
) -> AsyncIterator[list[Listener]]:
    """Streams on r0 alone, once each has some text; at the end they have ended."""
    case.only("r0")
    heard = [Listener() for _ in prompts]
    async with asyncio.TaskGroup() as group:
        for listener, prompt in zip(heard, prompts, strict=True):
            _ = group.create_task(listener.hear(case.client, prompt, chat, **more))
        await until(lambda: all(len(listener.chunks) > 4 for listener in heard))
        yield heard


@pytest.mark.parametrize("chat", [False, True], ids=["completions", "chat"])
async def test_a_killed_engine_is_not_seen_in_its_streams(case: Case, chat: bool) -> None:
    prompts = [f"question {number} of all" for number in range(20)]
    async with listening(case, prompts, chat) as heard:
        case.only("r0", "r1")
        case.kill(0)
    wholes = await asyncio.gather(*(undisturbed(case.client, prompt, chat) for prompt in prompts))
    assert [listener.story for listener in heard] == [whole.story for whole in wholes]
    assert {whole.chunks[-1].usage.completion_tokens for whole in wholes} == {TOKENS}
    assert case.failovers("continued") == 20
    assert case.edge.dispatch.totals() == (0, 0)


@pytest.mark.parametrize(
    "fault",
    [
        {"die_mid_stream": {"mode": "api", "after_tokens": 9}},
        {"die_mid_stream": {"mode": "enginecore", "after_tokens": 9}},
        {"error_in_stream": 9},
        {"abort_after": 9},
    ],
    ids=["api dies", "core dies", "error event", "abort"],
)
@pytest.mark.parametrize("chat", [False, True], ids=["completions", "chat"])
async def test_every_way_to_break_is_mended(case: Case, fault: dict[str, Any], chat: bool) -> None:
    case.only("r1")
    whole = await undisturbed(case.client, "hi", chat)
    case.only("r0")
    await case.engines[0].fault(**fault)
    listener = Listener()
    async with asyncio.TaskGroup() as group:
        _ = group.create_task(listener.hear(case.client, "hi", chat))
        await until(lambda: len(listener.chunks) > 2)
        case.only("r0", "r1")
    assert listener.story == whole.story
    record = await case.record()
    assert [a["replica"] for a in record["attempts"]] == ["r0", "r1"]
    first, second = (attempt["continued_at_tokens"] for attempt in record["attempts"])
    assert first is None
    assert 0 < second < TOKENS
    assert (record["outcome"], record["not_continued"]) == ("ok", "")


async def test_streams_of_a_frozen_engine_move_when_it_is_lost(case: Case) -> None:
    async with listening(case, ["hi"] * 3, chat=True) as heard:
        await case.engines[0].fault(freeze=True)
        case.only("r1")
        case.edge.set_serving("r0", Serving.LOST)
    whole = await undisturbed(case.client, "hi", chat=True)
    assert [listener.story for listener in heard] == [whole.story] * 3


async def test_a_silent_engine_loses_its_streams_after_the_idle_time() -> None:
    async with cases(2, EdgePolicy(idle_timeout_ms=1500)) as case:
        async with listening(case, ["hi"], chat=False) as heard:
            await case.engines[0].fault(freeze=True)
            case.only("r1")
        assert heard[0].story == (await undisturbed(case.client, "hi", chat=False)).story


async def test_two_deaths_in_a_row() -> None:
    async with cases(3) as case:
        async with listening(case, ["hi"] * 4, chat=True) as heard:
            case.only("r1")
            case.kill(0)
            await until(lambda: case.edge.inflight("r1") == 4)
            before = [len(listener.chunks) for listener in heard]
            await until(
                lambda: all(len(h.chunks) > n + 3 for h, n in zip(heard, before, strict=True))
            )
            case.only("r2")
            case.kill(1)
        whole = await undisturbed(case.client, "hi", chat=True)
        assert [listener.story for listener in heard] == [whole.story] * 4
        assert case.failovers("continued") == 8


@pytest.mark.parametrize(
    ("chat", "more", "why"),
    [
        (True, {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        (True, {"response_format": {"type": "json_object"}}, "response_format"),
        (True, {"logprobs": True}, "logprobs"),
        (True, {"n": 2}, "n"),
        (False, {"n": 2}, "n"),
        (False, {"presence_penalty": 1.0}, "presence_penalty"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
async def test_what_can_not_go_on_exactly_breaks_aloud(
    case: Case, chat: bool, more: dict[str, Any], why: str
) -> None:
    async with listening(case, ["hi"], chat, **more) as heard:
        case.only("r0", "r1")
        case.kill(0)
    error = heard[0].error
    assert error is not None
    assert error.code == "replica_lost"
    assert "incomplete" in error.message
    assert (await case.record())["not_continued"] in {why, "choices"}
    assert case.failovers("inexact") == 1
    assert case.edge.dispatch.totals() == (0, 0)


async def test_a_pool_may_switch_it_off(case: Case) -> None:
    pools = tuple(replace(pool, no_failover=True) for pool in case.edge.snapshot.pools)
    case.edge.push(replace(case.edge.snapshot, pools=pools))
    async with listening(case, ["hi"], chat=True) as heard:
        case.only("r0", "r1")
        case.kill(0)
    assert heard[0].error is not None
    assert heard[0].error.code == "replica_lost"
    assert case.failovers("off") == 1


async def test_with_no_replica_left_it_waits_awake_and_then_breaks_aloud() -> None:
    body = OPTIONS | {"prompt": "hi", "ignore_eos": True}
    del body["extra_body"]
    async with (
        cases(1, EdgePolicy(queue_wait_ms=2500)) as case,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{case.edge.url}/v1/completions", json=body) as answer,
    ):
        await answer.content.readuntil(b"\n\n")
        case.edge.set_serving("r0", Serving.LOST)
        heard = b""
        with contextlib.suppress(aiohttp.ClientPayloadError):
            while chunk := await answer.content.readany():
                heard += chunk
        assert b": keep-alive\n\n" in heard
        assert b'"replica_lost"' in heard
        assert b"[DONE]" not in heard
        assert case.edge.dispatch.totals() == (0, 0)


async def test_a_replica_that_comes_back_in_time_ends_the_wait() -> None:
    async with cases(1) as case:
        async with listening(case, ["hi"], chat=True) as heard:
            case.edge.set_serving("r0", Serving.LOST)
            await until(lambda: case.edge.dispatch.totals() == (0, 1))
            case.only("r0")
        assert heard[0].story == (await undisturbed(case.client, "hi", chat=True)).story


async def test_a_client_that_leaves_during_the_wait_leaves_nothing(case: Case) -> None:
    options = OPTIONS | {"prompt": "hi"}
    case.only("r0")
    stream = await case.client.completions.create(**options)
    await anext(aiter(stream))
    case.only()
    case.kill(0)
    await until(lambda: case.edge.dispatch.totals() == (0, 1))
    await stream.close()
    await until(lambda: case.edge.dispatch.totals() == (0, 0))
    assert (await case.record())["outcome"] == "client_disconnect"


async def test_a_request_that_kills_its_engines_is_stopped() -> None:
    async with cases(4) as case:
        for engine in case.engines:
            await engine.fault(die_mid_stream={"mode": "api", "after_tokens": 1})
        listener = await undisturbed(case.client, "killer", chat=False)
        assert listener.error is not None
        broken = await case.record()
        assert [attempt["fault"] for attempt in broken["attempts"]] == ["cut"] * 3
        assert broken["not_continued"] == "quarantined"
        with pytest.raises(openai.UnprocessableEntityError):
            await case.client.completions.create(**OPTIONS, prompt="killer")

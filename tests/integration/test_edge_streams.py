"""Streams and failures at the edge: never a silent truncation, never a needless one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import aiohttp
import openai
import pytest
from openai.types import Completion

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.wait import until
from trimtab.model import Credits, EdgePolicy, Outcome, Serving

LONG = {"model": MODEL, "prompt": "hi", "max_tokens": 4000, "ignore_eos": True, "stream": True}


@dataclass(slots=True)
class Pair:
    """An edge before two engines, r0 and r1."""

    edge: EdgeUnderTest
    engines: tuple[SimEngine, SimEngine]

    def only(self, replica: str) -> None:
        """Let only one replica get new requests."""
        for name in ("r0", "r1"):
            self.edge.set_serving(name, Serving.OPEN if name == replica else Serving.CLOSED)

    def without_failover(self) -> None:
        """Let streams break."""
        pools = tuple(replace(pool, no_failover=True) for pool in self.edge.snapshot.pools)
        self.edge.push(replace(self.edge.snapshot, pools=pools))

    def both(self) -> None:
        """Let both."""
        for name in ("r0", "r1"):
            self.edge.set_serving(name, Serving.OPEN)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with sim_engine() as a, sim_engine() as b, running_edge([a.url, b.url]) as edge:
        yield Pair(edge, (a, b))


@pytest.fixture
async def client(pair: Pair) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{pair.edge.url}/v1", api_key=KEY, max_retries=0
    ) as running:
        yield running


async def streamed(client: openai.AsyncOpenAI, prompt: str = "hi", tokens: int = 12) -> str:
    stream = await client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=tokens, stream=True
    )
    return "".join([chunk.choices[0].text async for chunk in stream])


async def long_stream(client: openai.AsyncOpenAI) -> openai.AsyncStream[Completion]:
    return await client.completions.create(
        model=MODEL,
        prompt="hi",
        max_tokens=4000,
        stream=True,
        extra_body={"ignore_eos": True},
    )


async def exhaust(stream: openai.AsyncStream[Completion], seen: list[int]) -> None:
    async for _ in stream:
        seen[0] += 1


def outcomes(pair: Pair, replica: str) -> set[Outcome]:
    return set(pair.edge.dispatch.replica(replica).outcomes)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"refuse": True}, Outcome.HARD),
        ({"reject": True}, Outcome.OVERLOAD),
        ({"error_rate": 1.0}, Outcome.SOFT),
        ({"error_in_stream": 0}, Outcome.SOFT),
        ({"empty_stream": True}, Outcome.HARD),
        ({"abort_after": 0}, Outcome.HARD),
        ({"die_mid_stream": {"mode": "enginecore", "after_tokens": 0}}, Outcome.HARD),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_a_failure_before_the_first_data_is_invisible(
    pair: Pair, client: openai.AsyncOpenAI, fault: dict[str, object], outcome: Outcome, stream: bool
) -> None:
    expected = await streamed(client)
    await pair.engines[0].fault(**fault)
    for _ in range(6):
        if stream:
            assert await streamed(client) == expected
        else:
            whole = await client.completions.create(model=MODEL, prompt="hi", max_tokens=12)
            assert whole.choices[0].text == expected
    assert outcomes(pair, "r0") <= {outcome, Outcome.OK}
    assert outcome in outcomes(pair, "r0")
    assert outcomes(pair, "r1") == {Outcome.OK}


@pytest.mark.parametrize(
    "fault",
    [
        {"die_mid_stream": {"mode": "api", "after_tokens": 4}},
        {"die_mid_stream": {"mode": "enginecore", "after_tokens": 4}},
        {"error_in_stream": 4},
        {"abort_after": 4},
    ],
    ids=["api dies", "core dies", "error event", "abort"],
)
async def test_a_stream_cut_in_the_middle_says_so(
    pair: Pair, client: openai.AsyncOpenAI, fault: dict[str, object]
) -> None:
    pair.without_failover()
    pair.only("r0")
    await pair.engines[0].fault(**fault)
    seen = [0]
    with pytest.raises(openai.APIError) as caught:
        await exhaust(await long_stream(client), seen)
    assert seen[0] >= 1
    assert caught.value.code in {"replica_lost", "replica_error"}
    assert "incomplete" in caught.value.message
    assert pair.edge.dispatch.totals() == (0, 0)


async def test_a_broken_stream_has_no_proper_end(pair: Pair) -> None:
    pair.without_failover()
    pair.only("r0")
    await pair.engines[0].fault(error_in_stream=2)
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        async with session.post(f"{pair.edge.url}/v1/completions", json=LONG) as answer:
            assert answer.status == 200
            body, ended_properly = b"", True
            try:
                while chunk := await answer.content.readany():
                    body += chunk
            except aiohttp.ClientPayloadError:
                ended_properly = False
        assert not ended_properly
        assert b'"error"' in body
        assert b"[DONE]" not in body


async def test_a_killed_engine_takes_its_plain_requests_to_the_other(
    pair: Pair, client: openai.AsyncOpenAI
) -> None:
    pair.only("r0")

    async def ask() -> str:
        whole = await client.completions.create(model=MODEL, prompt="hi", max_tokens=200)
        return whole.choices[0].text

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask()) for _ in range(6)]
        await until(lambda: pair.edge.inflight("r0") == 6)
        pair.both()
        pair.engines[0].process.send_signal(signal.SIGKILL)
    assert len({task.result() for task in asked}) == 1
    assert pair.edge.dispatch.totals() == (0, 0)


async def test_requests_without_data_leave_a_lost_replica_at_once(
    pair: Pair, client: openai.AsyncOpenAI
) -> None:
    pair.only("r0")
    await pair.engines[0].fault(freeze=True)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(streamed(client)) for _ in range(4)]
        await until(lambda: pair.edge.inflight("r0") == 4)
        pair.edge.set_serving("r1", Serving.OPEN)
        pair.edge.set_serving("r0", Serving.LOST)
    assert all(task.result() for task in asked)
    assert outcomes(pair, "r0") == {Outcome.HARD}


async def test_without_failover_streams_on_a_lost_replica_end_with_an_error(
    pair: Pair, client: openai.AsyncOpenAI
) -> None:
    pair.without_failover()
    pair.only("r0")
    stream = await long_stream(client)
    await anext(aiter(stream))
    await pair.engines[0].fault(freeze=True)
    pair.edge.set_serving("r0", Serving.LOST)
    with pytest.raises(openai.APIError, match="lost in the middle"):
        await exhaust(stream, [0])


async def test_pushes_that_follow_a_loss_at_once_are_taken(
    pair: Pair, client: openai.AsyncOpenAI
) -> None:
    pair.without_failover()
    pair.only("r0")
    stream = await long_stream(client)
    await anext(aiter(stream))
    pair.edge.set_serving("r0", Serving.LOST)
    for _ in range(4):  # the attempt needs a few turns of the loop to end
        pair.edge.push(Credits())
        await asyncio.sleep(0)
    with pytest.raises(openai.APIError, match="lost in the middle"):
        await exhaust(stream, [0])


async def test_when_every_replica_is_full_the_answer_is_a_503(
    pair: Pair, client: openai.AsyncOpenAI
) -> None:
    for engine in pair.engines:
        await engine.fault(reject=True)
    with pytest.raises(openai.InternalServerError) as caught:
        await streamed(client)
    assert caught.value.status_code == 503
    assert caught.value.code == "server_is_overloaded"
    assert outcomes(pair, "r0") | outcomes(pair, "r1") == {Outcome.OVERLOAD}


async def test_a_silent_replica_is_given_up_after_the_idle_time(pair: Pair) -> None:
    await pair.engines[0].fault(freeze=True)
    policy = EdgePolicy(idle_timeout_ms=300)
    async with (
        running_edge([pair.engines[0].url], policy=policy) as edge,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{edge.url}/v1/completions", json=LONG) as answer,
    ):
        assert answer.status == 504
        assert (await answer.json())["error"]["code"] == "upstream_timeout"


async def test_a_long_silence_is_kept_awake_and_a_late_failure_is_an_event(pair: Pair) -> None:
    await pair.engines[0].fault(freeze=True)
    policy = EdgePolicy(head_hold_ms=50)
    async with (
        running_edge([pair.engines[0].url], policy=policy) as edge,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{edge.url}/v1/completions", json=LONG) as answer,
    ):
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert await answer.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        edge.set_serving("r0", Serving.LOST)
        event = await answer.content.readuntil(b"\n\n")
        assert event.startswith(b'data: {"error"')


async def test_after_a_long_silence_data_still_flows(pair: Pair) -> None:
    await pair.engines[0].fault(freeze=True)
    policy = EdgePolicy(head_hold_ms=50)
    async with (
        running_edge([pair.engines[0].url], policy=policy) as edge,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{edge.url}/v1/completions", json=LONG | {"max_tokens": 5}) as answer,
    ):
        assert await answer.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        await pair.engines[0].heal()
        body = await answer.read()
        assert body.count(b"data: ") == 6
        assert body.endswith(b"data: [DONE]\n\n")


async def test_a_stale_connection_is_repeated_for_free(client: openai.AsyncOpenAI) -> None:
    async with (
        sim_engine("--keep-alive-s", "0.05") as engine,
        running_edge([engine.url]) as edge,
    ):
        hasty = client.with_options(base_url=f"{edge.url}/v1")
        for pause_s in (0.05, 0.0505, 0.051, 0.0495, 0.052, 0.0501, 0.0, 0.0515):
            assert await streamed(hasty)
            await asyncio.sleep(pause_s)
        budget = edge.dispatch.pool(MODEL).budget
        assert budget.tokens == budget.depth


async def test_the_bytes_of_a_stream_are_the_engines(pair: Pair) -> None:
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 20, "stream": True}
    body |= {"stream_options": {"include_usage": True}}
    headers = {"authorization": f"Bearer {KEY}"}
    texts = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for url in (pair.engines[1].url, pair.edge.url):
            async with session.post(f"{url}/v1/completions", json=body) as answer:
                events = (await answer.read()).split(b"\n\n")
            texts.append([event.partition(b'"object"')[2] for event in events])
    created = [[t.partition(b'"model"')[2] for t in text] for text in texts]
    fingerprint_free = [[t.partition(b',"system_fingerprint"')[0] for t in c] for c in created]
    assert fingerprint_free[0] == fingerprint_free[1]

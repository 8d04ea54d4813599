"""The edge on real sockets, before simulated engines: what callers send and get."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import openai
import pytest

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.wait import until
from trimtab.model import Credits, EdgePolicy, Serving
from trimtab.policy.autonomy import Mode
from trimtab.runtime import clock

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def engine() -> AsyncIterator[SimEngine]:
    async with sim_engine() as running:
        yield running


@pytest.fixture
async def edge(engine: SimEngine) -> AsyncIterator[EdgeUnderTest]:
    async with running_edge([engine.url]) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        yield session


@pytest.fixture
async def client(edge: EdgeUnderTest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0) as running:
        yield running


async def test_plain_and_streamed_answers_are_the_same_text(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model=MODEL, prompt="hi", max_tokens=12)
    stream = await client.completions.create(model=MODEL, prompt="hi", max_tokens=12, stream=True)
    parts = [chunk.choices[0].text async for chunk in stream]
    assert len(parts) > 1
    assert "".join(parts) == whole.choices[0].text
    chat = await client.chat.completions.create(
        model="alias", messages=[{"role": "user", "content": "hi"}], max_tokens=12, stream=True
    )
    deltas = [chunk.choices[0].delta.content or "" async for chunk in chat]
    assert "".join(deltas)


async def test_models_are_the_edges_own(
    client: openai.AsyncOpenAI, edge: EdgeUnderTest, engine: SimEngine
) -> None:
    await engine.fault(refuse=True)
    assert [model.id async for model in client.models.list()] == [MODEL, "alias"]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nope")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", CHAT, b'{"model":"demo","messages":', 400, "invalid_json"),
        ("POST", CHAT, b'{"model":"gpt-9","messages":[]}', 404, "model_not_found"),
        ("GET", CHAT, None, 405, "method_not_allowed"),
        ("GET", "/v1/files", None, 404, "unknown_url"),
        ("POST", "/v1/v1/chat/completions", b"{}", 404, "unknown_url"),
        ("POST", "/sleep", b"{}", 404, "unknown_url"),
        ("POST", "/invocations", b"{}", 404, "unknown_url"),
        ("GET", "/metrics", None, 404, "unknown_url"),
        ("GET", "/version", None, 404, "unknown_url"),
    ],
)
async def test_refusals_are_openai_shaped(
    http: aiohttp.ClientSession,
    edge: EdgeUnderTest,
    method: str,
    path: str,
    body: bytes | None,
    status: int,
    code: str,
) -> None:
    headers = {"content-type": "application/json"}
    async with http.request(method, edge.url + path, data=body, headers=headers) as answer:
        assert answer.status == status
        assert answer.headers["x-request-id"].startswith("req_")
        assert (await answer.json())["error"]["code"] == code


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-wrong"}, {"x-api-key": ""}])
async def test_without_a_known_key_nothing_works(
    edge: EdgeUnderTest, headers: dict[str, str]
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{edge.url}/v1/models", headers=headers) as answer,
    ):
        assert answer.status == 401
        assert answer.headers["x-should-retry"] == "false"
        assert (await answer.json())["error"]["code"] == "invalid_api_key"


async def test_a_key_is_good_until_it_expires(
    edge: EdgeUnderTest, http: aiohttp.ClientSession
) -> None:
    seen, error = [], {}
    for expires_s in (clock.wall_s() + 60, 1_000_000_000.0):
        keys = tuple(replace(k, expires_ms=int(1000 * expires_s)) for k in edge.snapshot.keys)
        edge.push(replace(edge.snapshot, keys=keys))
        async with http.get(f"{edge.url}/v1/models") as answer:
            seen.append((answer.status, answer.headers.get("x-should-retry")))
            error = (await answer.json()).get("error", {})
    assert seen == [(200, None), (401, "false")]
    assert error["code"] == "expired_api_key"
    assert "expired at 2001-09-09T01:46:40+00:00" in error["message"]
    assert KEY not in error["message"]


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
async def test_any_key_header_in_use_is_taken(edge: EdgeUnderTest, header: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{edge.url}/v1/models", headers={header: KEY}) as answer,
    ):
        assert answer.status == 200


async def test_what_is_not_even_http_gets_the_envelope(edge: EdgeUnderTest) -> None:
    host, port = edge.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"NONSENSE\r\n\r\n")
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert json.loads(body)["error"]["code"] == "bad_request"


async def test_the_engines_own_verdict_passes_through(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, engine: SimEngine
) -> None:
    asked = {"model": MODEL, "prompt": "x", "temperature": -1}
    async with http.post(f"{engine.url}/v1/completions", json=asked) as direct:
        expected = await direct.read()
    for stream in (False, True):
        body = asked | {"stream": stream}
        async with http.post(f"{edge.url}/v1/completions", json=body) as answer:
            assert answer.status == 400
            assert await answer.read() == expected


async def test_a_long_header_and_a_large_body_are_taken(
    http: aiohttp.ClientSession, edge: EdgeUnderTest
) -> None:
    fields = {"model": MODEL, "prompt": "hi", "max_tokens": 2, "zzz": "x" * (3 * 1024 * 1024)}
    body = io.BytesIO(json.dumps(fields).encode())
    headers = {"x-long": "y" * 16_000, "content-type": "application/json"}
    async with http.post(f"{edge.url}/v1/completions", data=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()


async def test_a_body_over_the_limit_is_413(http: aiohttp.ClientSession, engine: SimEngine) -> None:
    policy = EdgePolicy(body_limit_bytes=1000)
    async with running_edge([engine.url], policy=policy) as edge:
        async with http.post(f"{edge.url}{CHAT}", data=b"x" * 1001) as answer:
            assert answer.status == 413
            assert "1000 bytes" in (await answer.json())["error"]["message"]

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(11):
                yield b"x" * 100

        async with http.post(f"{edge.url}{CHAT}", data=chunks()) as answer:
            assert answer.status == 413


async def test_a_caller_that_leaves_frees_the_slot_and_the_engine(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, engine: SimEngine
) -> None:
    for stream in (False, True):
        body = {"model": MODEL, "prompt": "hi", "max_tokens": 4000, "ignore_eos": True}
        post = http.post(f"{edge.url}/v1/completions", json=body | {"stream": stream})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), post as answer:
                await answer.read()
        await until(lambda: edge.inflight("r0") == 0)
        async with asyncio.timeout(10):
            while await engine.gauge("num_requests_running"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_a_caller_that_leaves_the_queue_is_forgotten(
    http: aiohttp.ClientSession, engine: SimEngine
) -> None:
    await engine.fault(freeze=True)
    async with running_edge([engine.url], slots=1) as edge:
        body = {"model": MODEL, "prompt": "hi", "max_tokens": 5}

        async def ask() -> None:
            async with http.post(f"{edge.url}/v1/completions", json=body):
                pass

        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(ask()) for _ in range(2)]
            await until(lambda: edge.dispatch.totals() == (1, 1))
            for caller in callers:
                caller.cancel()
        await until(lambda: edge.dispatch.totals() == (0, 0))


async def test_slots_bound_what_the_engine_gets_and_the_rest_waits_in_order(
    client: openai.AsyncOpenAI, engine: SimEngine
) -> None:
    async with running_edge([engine.url], slots=2) as edge:
        bounded = client.with_options(base_url=f"{edge.url}/v1")
        most = 0

        async def ask() -> None:
            await bounded.completions.create(model=MODEL, prompt="hi", max_tokens=5)

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask()) for _ in range(8)]
            while not all(task.done() for task in asked):
                most = max(most, edge.inflight("r0"))
                await asyncio.sleep(0.002)
        assert most == 2
        assert edge.dispatch.totals() == (0, 0)


async def test_a_full_queue_refuses_fast_and_says_when_to_come_back(
    http: aiohttp.ClientSession, engine: SimEngine
) -> None:
    await engine.fault(freeze=True)
    policy = EdgePolicy(queue_limit=1)
    async with running_edge([engine.url], slots=1, policy=policy) as edge:
        body = {"model": MODEL, "prompt": "hi"}

        async def ask() -> None:
            async with http.post(f"{edge.url}/v1/completions", json=body):
                pass

        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(ask()) for _ in range(2)]
            await until(lambda: edge.dispatch.totals() == (1, 1))
            async with http.post(f"{edge.url}/v1/completions", json=body) as answer:
                assert answer.status == 503
                assert (await answer.json())["error"]["code"] == "server_is_overloaded"
                assert 1000 <= int(answer.headers["retry-after-ms"]) <= 90_000
            for caller in callers:
                caller.cancel()


async def test_a_wait_longer_than_the_caller_has_is_a_refusal(
    http: aiohttp.ClientSession, engine: SimEngine
) -> None:
    await engine.fault(freeze=True)
    async with running_edge([engine.url], slots=0) as edge:
        headers = {"x-stainless-read-timeout": "0.2"}
        body = {"model": MODEL, "prompt": "hi"}
        async with http.post(f"{edge.url}/v1/completions", json=body, headers=headers) as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["code"] == "server_is_overloaded"
        assert edge.dispatch.totals() == (0, 0)


async def test_no_open_replica_is_said_at_once(
    http: aiohttp.ClientSession, edge: EdgeUnderTest
) -> None:
    edge.set_serving("r0", Serving.CLOSED)
    body = {"model": MODEL, "messages": HELLO}
    async with http.post(f"{edge.url}{CHAT}", json=body) as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["code"] == "no_replica_available"
        assert 5.0 <= float(answer.headers["retry-after"]) <= 8.0


async def test_health_needs_no_key_and_says_when_the_edge_drains(edge: EdgeUnderTest) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/", "/healthz", "/health", "/readyz"):
            async with session.get(edge.url + path) as answer:
                assert answer.status == 200, path
            async with session.head(edge.url + path) as answer:
                assert answer.status == 200, path
        async with session.get(f"{edge.url}/readyz") as answer:
            assert (await answer.json())["open_replicas"] == 1
        edge.endpoint.draining = True
        async with session.get(f"{edge.url}/readyz") as answer:
            assert answer.status == 503
            assert answer.headers["connection"] == "close"


async def test_an_edge_that_is_drained_says_so_and_serves_on(
    edge: EdgeUnderTest, http: aiohttp.ClientSession
) -> None:
    edge.push(Credits(tuple(edge.table.credits.values()), leaving=True))
    async with http.get(f"{edge.url}/readyz") as answer:
        assert (answer.status, (await answer.json())["reason"]) == (503, "draining")
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 1}
    async with http.post(f"{edge.url}{CHAT}", json=body) as answer:
        assert answer.status == 200
    async with http.get(f"{edge.url}/v1/models") as answer:
        assert answer.headers["connection"] == "close"
    edge.dispatch.mode = Mode.AUTONOMOUS  # nobody could take it back
    async with http.get(f"{edge.url}/readyz") as answer:
        assert answer.status == 200

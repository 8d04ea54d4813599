"""Every JSON path through the edge, in its own dialect, before simulated engines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import openai
import pytest

from edge.core.openai import key_hash
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.local_engine import LocalEngine, local_engine
from tests.fakes.wait import until
from trimtab.model import ApiKey, Outcome, Serving
from trimtab.runtime import clock

HELLO = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 12, "ignore_eos": True}
TEXT: dict[str, Any] = {"model": MODEL, "prompt": "hello", "max_tokens": 12, "ignore_eos": True}
RESPONSE: dict[str, Any] = {"model": MODEL, "input": "hello", "max_output_tokens": 12}
RESPONSE |= {"ignore_eos": True}
GENERATING = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": TEXT,
    "/v1/messages?beta=true": CHAT,
    "/v1/responses": RESPONSE,
}
WHOLE: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": MODEL, "input": ["a", "b"]},
    "/pooling": {"model": MODEL, "input": "a"},
    "/v1/score": {"model": MODEL, "text_1": "a", "text_2": "b"},
    "/score": {"model": MODEL, "text_1": "a", "text_2": "b"},
    "/classify": {"model": MODEL, "input": "a"},
    "/v1/rerank": {"model": MODEL, "query": "a", "documents": ["b", "c"]},
    "/rerank": {"model": MODEL, "query": "a", "documents": ["b"]},
    "/v2/rerank": {"model": MODEL, "query": "a", "documents": ["b"]},
    "/tokenize": {"model": MODEL, "prompt": "hello"},
    "/detokenize": {"model": MODEL, "tokens": []},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": HELLO},
}
ENDS = {
    "/v1/messages?beta=true": b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    "/v1/chat/completions": b"data: [DONE]\n\n",
    "/v1/completions": b"data: [DONE]\n\n",
}


@pytest.fixture
async def engines() -> AsyncIterator[list[LocalEngine]]:
    async with (
        local_engine("served-a", keeps_responses=True) as a,
        local_engine("served-b", keeps_responses=True) as b,
    ):
        yield [a, b]


@pytest.fixture
async def edge(engines: list[LocalEngine]) -> AsyncIterator[EdgeUnderTest]:
    """Before two engines that call the model served-a and served-b."""
    async with running_edge([engine.url for engine in engines]) as running:
        known = zip(running.snapshot.routes, ("served-a", "served-b"), strict=True)
        routes = tuple(replace(route, served_as=name) for route, name in known)
        running.push(replace(running.snapshot, routes=routes))
        yield running


@pytest.fixture
async def http(edge: EdgeUnderTest) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(edge.url, headers=headers) as session:
        yield session


@pytest.fixture
async def client(edge: EdgeUnderTest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0) as running:
        yield running


async def posted(http: aiohttp.ClientSession, path: str, body: object) -> bytes:
    async with http.post(path, json=body) as answer:
        content = await answer.read()
        assert answer.status == 200, content
        return content


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("path", GENERATING)
async def test_answers_are_the_engines_but_for_the_models_name(
    http: aiohttp.ClientSession, engines: list[LocalEngine], path: str, stream: bool
) -> None:
    for _ in range(6):  # both engines are asked
        body = await posted(http, path, GENERATING[path] | {"stream": stream})
        assert b"served-" not in body
        assert b'"model":"demo"' in body
        assert (b'"usage"' in body) is (not stream or path not in ENDS or "messages" in path)
        assert not stream or body.endswith(ENDS.get(path, b"}\n\n"))
        assert b"system_fingerprint" in body or "completions" not in path
    for engine, name in zip(engines, ("served-a", "served-b"), strict=True):
        assert engine.seen
        assert {json.loads(sent)["model"] for _, _, sent in engine.seen} == {name}


@pytest.mark.parametrize("path", WHOLE)
async def test_whole_answers(http: aiohttp.ClientSession, path: str) -> None:
    body = await posted(http, path, WHOLE[path] | {"stream": True})
    answer = json.loads(body)
    assert b"served-" not in body
    assert answer.get("model", MODEL) == MODEL


async def tokens_told(edge: EdgeUnderTest, expected: int) -> None:
    told = [0]

    def all_told() -> bool:
        told[0] += sum(use.tokens for use in edge.dispatch.report_replicas(clock.now_s()))
        return told[0] >= expected

    await until(all_told)
    assert told[0] == expected


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("path", GENERATING)
async def test_tokens_are_counted_as_the_engine_counts_them(
    edge: EdgeUnderTest, http: aiohttp.ClientSession, path: str, stream: bool
) -> None:
    await posted(http, path, GENERATING[path] | {"stream": stream})
    await tokens_told(edge, 12)


async def test_a_pass_counts_little_and_what_is_cheap_takes_no_slot(
    edge: EdgeUnderTest, http: aiohttp.ClientSession
) -> None:
    await posted(http, "/v1/embeddings", WHOLE["/v1/embeddings"])
    await tokens_told(edge, 1)
    for replica in ("r0", "r1"):
        edge.dispatch.replica(replica).inflight += 8  # all slots are taken
    assert json.loads(await posted(http, "/tokenize", WHOLE["/tokenize"]))["count"]
    assert edge.inflight("r0") == 8


async def test_usage_is_for_those_who_ask(client: openai.AsyncOpenAI) -> None:
    chunks: dict[bool, list[Any]] = {}
    for asks in (False, True):
        options: Any = {"stream_options": {"include_usage": True}} if asks else {}
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            max_tokens=8,
            **options,
        )
        chunks[asks] = [chunk async for chunk in stream]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks[False])
    assert chunks[False][-1].system_fingerprint
    assert chunks[True][-1].choices == []
    assert chunks[True][-1].usage.completion_tokens > 0
    assert len(chunks[True]) == len(chunks[False]) + 1


async def test_responses_are_asked_for_where_they_were_made(
    client: openai.AsyncOpenAI, engines: list[LocalEngine]
) -> None:
    for _ in range(6):
        made = await client.responses.create(model="alias", input="hello", max_output_tokens=8)
        assert made.model == "alias"
        kept = await client.responses.retrieve(made.id)
        assert (kept.output_text, kept.model) == (made.output_text, "alias")
        then = await client.responses.create(
            model=MODEL, input="and?", previous_response_id=made.id, max_output_tokens=1
        )
        assert then.previous_response_id == made.id
        with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
            await client.responses.cancel(made.id)
        stream = await client.responses.create(
            model=MODEL, input="hello", stream=True, max_output_tokens=8
        )
        events = [event async for event in stream]
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        again = await client.responses.retrieve(events[-1].response.id)
        assert again.output_text == made.output_text
    assert all(engine.seen for engine in engines)


async def test_a_response_that_nobody_knows(
    edge: EdgeUnderTest, client: openai.AsyncOpenAI, engines: list[LocalEngine]
) -> None:
    with pytest.raises(openai.NotFoundError, match="its id names none") as caught:
        await client.responses.retrieve("resp_nobody")
    assert caught.value.code == "response_not_found"
    with pytest.raises(openai.NotFoundError, match="its id names none"):
        await client.responses.create(model=MODEL, input="x", previous_response_id="resp_nobody")
    assert not any(engine.seen for engine in engines)


async def test_any_edge_knows_who_made_a_response_and_for_whom(
    edge: EdgeUnderTest, client: openai.AsyncOpenAI, engines: list[LocalEngine]
) -> None:
    async with running_edge([engine.url for engine in engines]) as other:
        routes = edge.snapshot.routes  # the other edge has the same fleet
        theirs = ApiKey(key_hash("sk-theirs"), "theirs")
        other.push(replace(other.snapshot, routes=routes, keys=(*edge.snapshot.keys, theirs)))
        for _ in range(6):
            made = await client.responses.create(model="alias", input="hello", max_output_tokens=8)
            for key, url in ((KEY, other.url), (KEY, edge.url), ("sk-theirs", other.url)):
                async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key) as asking:
                    if key == KEY:
                        assert (await asking.responses.retrieve(made.id)).model == "alias"
                    else:
                        with pytest.raises(openai.NotFoundError):
                            await asking.responses.retrieve(made.id)
    assert all(engine.seen for engine in engines)


async def test_a_response_whose_replica_takes_no_more_requests(
    edge: EdgeUnderTest, client: openai.AsyncOpenAI
) -> None:
    made = await client.responses.create(model=MODEL, input="hello", max_output_tokens=1)
    for replica in ("r0", "r1"):
        edge.set_serving(replica, Serving.CLOSED)
    assert (await client.responses.retrieve(made.id)).id == made.id
    with pytest.raises(openai.InternalServerError, match="made response") as caught:
        await client.responses.create(model=MODEL, input="x", previous_response_id=made.id)
    assert caught.value.status_code == 503


async def until_cut(http: aiohttp.ClientSession, path: str) -> bytes:
    """What comes of a stream whose connection ends without the stream's end."""
    got = b""
    async with http.post(path, json=GENERATING[path] | {"stream": True}) as answer:
        try:
            async for chunk in answer.content.iter_any():
                got += chunk
        except aiohttp.ClientPayloadError:
            return got
    raise AssertionError("it ended as if all were well", got)


FAILURES: list[dict[str, Any]] = [
    {"error_in_stream": 4},
    {"die_mid_stream": {"mode": "api", "after_tokens": 4}},
]
DIALECTS = ("/v1/messages?beta=true", "/v1/responses")


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        *((path, fault) for path in DIALECTS for fault in FAILURES),
        # of a response, vLLM says without a word that it is completed
        ("/v1/messages?beta=true", {"abort_after": 4}),
    ],
)
async def test_a_stream_that_breaks_says_so_in_its_dialect_and_is_cut(
    edge: EdgeUnderTest,
    http: aiohttp.ClientSession,
    engines: list[LocalEngine],
    path: str,
    fault: dict[str, Any],
) -> None:
    edge.set_serving("r1", Serving.CLOSED)
    await engines[0].fault(**fault)
    got = await until_cut(http, path)
    name, data = got.rstrip(b"\n").rpartition(b"\n\n")[2].split(b"\ndata: ")
    assert (name, json.loads(data)["type"]) == (b"event: error", "error")
    assert b"event: message_stop" not in got
    assert b"event: response.completed" not in got


async def test_openais_client_raises_on_a_broken_response(
    edge: EdgeUnderTest, client: openai.AsyncOpenAI, engines: list[LocalEngine]
) -> None:
    edge.set_serving("r1", Serving.CLOSED)
    await engines[0].fault(error_in_stream=4)
    stream = await client.responses.create(
        model=MODEL, input="hello", max_output_tokens=12, stream=True
    )
    with pytest.raises(openai.APIError, match="The replica was lost in the middle") as caught:
        await exhausted(stream)
    assert caught.value.code == "replica_lost"


async def exhausted(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("fault", FAILURES, ids=lambda fault: next(iter(fault)))
async def test_a_failure_before_the_first_data_is_invisible(
    edge: EdgeUnderTest,
    http: aiohttp.ClientSession,
    engines: list[LocalEngine],
    path: str,
    fault: dict[str, Any],
) -> None:
    expected = await posted(http, path, GENERATING[path] | {"stream": True})
    outcomes = edge.dispatch.replica("r0").outcomes
    while not outcomes.keys() - {Outcome.OK}:
        await engines[0].fault(**json.loads(json.dumps(fault).replace("4", "0")))
        got = await posted(http, path, GENERATING[path] | {"stream": True})
        assert got.count(b"event: ") == expected.count(b"event: ")
        assert b"event: error" not in got


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stream_that_goes_on_elsewhere_keeps_its_name_and_tells_no_usage(
    edge: EdgeUnderTest, http: aiohttp.ClientSession, engines: list[LocalEngine], path: str
) -> None:
    def choices(body: bytes) -> list[dict[str, Any]]:
        chunks = [json.loads(part[6:]) for part in body.split(b"\n\n")[:-2]]
        assert {chunk["model"] for chunk in chunks} == {MODEL}
        assert not any("usage" in chunk for chunk in chunks)
        return [chunk["choices"][0] for chunk in chunks]

    expected = choices(await posted(http, path, GENERATING[path] | {"stream": True}))
    continued = edge.metrics.failovers.labels(MODEL, "continued")
    while not any(metric.samples[0].value for metric in continued.collect()):
        await engines[0].fault(die_mid_stream={"mode": "api", "after_tokens": 6})
        got = choices(await posted(http, path, GENERATING[path] | {"stream": True}))
        for field in ("text", "delta", "finish_reason"):
            assert [choice.get(field) for choice in got] == [
                choice.get(field) for choice in expected
            ]


async def test_an_anthropic_client_reads_its_own_errors(
    edge: EdgeUnderTest, http: aiohttp.ClientSession, engines: list[LocalEngine]
) -> None:
    async def failed(status: int, kind: str, **request: Any) -> str:
        headers = request.pop("headers", {})
        async with http.post("/v1/messages?beta=true", headers=headers, **request) as answer:
            body = await answer.json()
            assert (answer.status, body["error"]["type"]) == (status, kind), body
            assert answer.headers["request-id"] == body["request_id"]
            return str(body["error"]["message"])

    await failed(401, "authentication_error", headers={"authorization": "Bearer no"}, json=CHAT)
    assert "demo" in await failed(404, "not_found_error", json=CHAT | {"model": "x"})
    await failed(
        400, "invalid_request_error", data=b"{", headers={"content-type": "application/json"}
    )
    for engine in engines:
        await engine.fault(reject=True)
    assert "full" in await failed(529, "overloaded_error", json=CHAT)
    async with http.get("/v1/none", headers={"anthropic-version": "2023-06-01"}) as answer:
        assert (await answer.json())["error"]["type"] == "not_found_error"
    async with http.post("/v1/messages", json=CHAT | {"max_tokens": -1}) as answer:
        assert answer.status in {400, 529}


async def test_models_in_both_dialects(
    http: aiohttp.ClientSession, client: openai.AsyncOpenAI
) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL, "alias"]
    assert (await client.models.retrieve("alias")).id == "alias"
    headers = {"anthropic-version": "2023-06-01"}
    async with http.get("/v1/models?limit=1000", headers=headers) as answer:
        page = await answer.json()
        assert [card["id"] for card in page["data"]] == [MODEL, "alias"]
        assert page["has_more"] is False
    async with http.get("/v1/models/alias", headers=headers) as answer:
        assert (await answer.json())["type"] == "model"
        assert "request-id" in answer.headers


async def test_a_models_name_with_slashes(edge: EdgeUnderTest, client: openai.AsyncOpenAI) -> None:
    pool = replace(edge.snapshot.pools[0], aliases=("org/model",))
    edge.push(replace(edge.snapshot, pools=(pool,)))
    assert (await client.models.retrieve("org/model")).id == "org/model"


@pytest.mark.parametrize("path", ["/sleep", "/invocations", "/v1/load_lora_adapter", "/metrics"])
async def test_what_steers_engines_is_denied(
    http: aiohttp.ClientSession, engines: list[LocalEngine], path: str
) -> None:
    async with http.post(path, json={}) as answer:
        assert answer.status == 404
        assert "POST /v1/messages" in (await answer.json())["error"]["message"]
    assert not any(engine.seen for engine in engines)


async def test_extra_paths_are_served_when_they_are_listed(engines: list[LocalEngine]) -> None:
    path = "/v1/chat/completions/batch"
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        running_edge([engines[0].url], extra_paths=(path, "/sleep")) as edge,
        aiohttp.ClientSession(edge.url, headers=headers) as http,
    ):
        async with http.post(path, json=CHAT) as answer:
            message = (await answer.json())["error"]["message"]  # the engine was asked
            assert f"does not serve {path}" in message
        async with http.post("/sleep", json=CHAT) as answer:
            assert "error" in await answer.json()
    assert [path for _, path, _ in engines[0].seen] == [path]

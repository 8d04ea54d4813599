"""The same calls to a bare engine and through an edge: nothing differs but what the docs list.

The list is the last table of docs/headers.md. Two engines: a simulated one, which validates as vLLM
does, and one that replays bytes recorded from a real vLLM, for which even ids must be the same.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.fakes.edge import KEY, MODEL, running_edge
from tests.fakes.local_engine import local_engine
from tests.fakes.replay import DATA, replay_engine
from trimtab.model import Credit, Credits, Pool

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "headers.md"
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"


def documented(where: str) -> frozenset[str]:
    """What the docs say may differ there."""
    rows = re.findall(rf"^\| {where} \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    return frozenset(name for row in rows for name in re.findall(r"`(.+?)`", row))


HEADERS, FIELDS, REFUSALS = documented("header"), documented("field"), documented("refusal")


class Call(NamedTuple):
    """One request."""

    path: str
    body: bytes = b""
    method: str = "POST"
    content_type: str = "application/json"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


def text(**fields: object) -> Call:
    return Call(
        TEXT, json.dumps({"model": MODEL, "prompt": "hi", "max_tokens": 5} | fields).encode()
    )


def chat(**fields: object) -> Call:
    messages = [{"role": "user", "content": "hello"}]
    asked = {"model": MODEL, "messages": messages, "max_tokens": 5} | fields
    return Call(CHAT, json.dumps(asked).encode())


USAGE = {"include_usage": True}
ADDED = b',"stream_options":{"include_usage":true}}'
CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}
OF_THE_ENGINE = {
    "text": text(),
    "text, streamed": text(stream=True),
    "text, streamed, usage": text(stream=True, stream_options=USAGE),
    "text, usage in all chunks": text(stream=True, stream_options=CONTINUOUS),
    "text, two choices": text(n=2),
    "text, two choices streamed": text(n=2, stream=True),
    "text, many prompts": text(prompt=["a", "b", "c"]),
    "text, tokens as prompt": text(prompt=[1, 2, 3]),
    "text, stop": text(stop=["the"], max_tokens=50),
    "text, no limit named": text(max_tokens=None),
    "chat": chat(),
    "chat, streamed": chat(stream=True),
    "chat, streamed, usage": chat(stream=True, stream_options=USAGE),
    "chat, usage in all chunks": chat(stream=True, stream_options=CONTINUOUS),
    "chat, two choices streamed": chat(n=2, stream=True),
    "chat, parts": chat(messages=[{"role": "user", "content": [{"type": "text", "text": "é"}]}]),
    "chat, other limit": chat(max_completion_tokens=3),
    "stream is null": text(stream=None),
    "stream is a word": text(stream="true"),
    "unknown fields": chat(zzz={"a": [1, 1e300, None]}, top_k=3, chat_template_kwargs={"x": "é"}),
    "privileged fields": text(priority=-9, cache_salt="s", request_id="mine", vllm_xargs={}),
    "blanks and escapes": Call(TEXT, b'{ "model":\t"demo",\n"prompt":"\\u00e9", "max_tokens":2 }'),
    "a huge number": Call(TEXT, b'{"model":"demo","prompt":"a","max_tokens":2,"z":1e400}'),
    "a field twice": Call(TEXT, b'{"model":"demo","prompt":"a","prompt":"b","max_tokens":2}'),
    "other case of content type": text()._replace(content_type="Application/JSON; charset=utf-8"),
    "no prompt": Call(TEXT, b'{"model":"demo"}'),
    "no messages": Call(CHAT, b'{"model":"demo"}'),
    "wrong type": text(max_tokens="many"),
    "below zero": text(max_tokens=-1),
    "temperature": chat(temperature=99),
    "options without stream": text(stream_options=USAGE),
}
OF_THE_EDGE = {
    "not JSON": Call(TEXT, b'{"model":"demo","prompt":'),
    "nothing": Call(TEXT, b""),
    "another content type": text()._replace(content_type="text/plain"),
    "unknown model": text(model="nope"),
    "too many tokens": text(max_tokens=100_000),
    "too many tokens, streamed": text(max_tokens=100_000, stream=True),
    "unknown path": Call("/v1/nothing", b"{}"),
    "unknown method": Call(TEXT, method="GET"),
}
RECORDED = (
    *("chat-nonstream", "comp-nonstream", "comp-batch-prompts", "comp-priority-fcfs"),
    *("chat-stream", "chat-stream-n2", "chat-stream-usage", "chat-stream-usage-continuous"),
    *("comp-stream", "comp-stream-usage", "sse-keepalive-waiting"),
    *sorted(path.stem for path in DATA.glob("err-*.http") if "wrong-api-key" not in path.stem),
)

OF_ANOTHER_DIALECT = {
    "responses-nonstream": "/v1/responses",
    "responses-stream": "/v1/responses",
    "messages-nonstream": "/v1/messages",
    "messages-stream": "/v1/messages",
    "messages-count-tokens": "/v1/messages/count_tokens",
    "messages-err-no-max-tokens": "/v1/messages",  # in OpenAI's envelope: vLLM's own words
}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        yield session


async def ask(http: aiohttp.ClientSession, base: str, call: Call) -> Answer:
    """Whole, as it came."""
    said = {"content-type": call.content_type}
    async with http.request(call.method, base + call.path, data=call.body, headers=said) as answer:
        named = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, named, await answer.read())


def evened(answer: Answer) -> tuple[int, dict[str, str], list[Any]]:
    """Without what may differ."""
    kept = {name: value for name, value in answer.headers.items() if name not in HEADERS}
    stream = kept.get("content-type", "").startswith("text/event-stream")
    if stream:
        events = [_event(event) for event in answer.body.split(b"\n\n")]
        return answer.status, kept, _folded(event for event in events if event)
    if kept.get("content-length"):
        kept["content-length"] = "some"  # ids have different lengths
    return answer.status, kept, [_event(answer.body)]


def _event(raw: bytes) -> Any:
    try:
        data = json.loads(raw.removeprefix(b"data: "))
    except ValueError:
        return raw
    return {k: v for k, v in data.items() if k not in FIELDS} if isinstance(data, dict) else data


def _folded(events: Iterable[Any]) -> list[Any]:
    """A stream, however its text was cut into chunks: that hangs on the moment."""
    texts: dict[int, str] = {}
    last: dict[int, Any] = {}
    fields: dict[str, Any] = {}
    others: list[Any] = []
    for event in events:
        if not isinstance(event, dict) or not event["choices"]:
            others.append(event)
            continue
        for choice in event.pop("choices"):
            said = choice.pop("text", None) or choice.pop("delta", {}).get("content") or ""
            texts[choice["index"]] = texts.get(choice["index"], "") + said
            last[choice["index"]] = choice
        fields |= event
    return [texts, last, fields, others]


@pytest.mark.parametrize("name", OF_THE_ENGINE)
async def test_a_live_engine_answers_through_the_edge_as_it_does_directly(
    http: aiohttp.ClientSession, name: str
) -> None:
    async with local_engine(MODEL) as engine, running_edge([engine.url]) as edge:
        direct = evened(await ask(http, engine.url, OF_THE_ENGINE[name]))
        assert evened(await ask(http, edge.url, OF_THE_ENGINE[name])) == direct


@pytest.mark.parametrize("name", OF_THE_EDGE)
async def test_what_the_edge_refuses_itself_has_the_engines_status(
    http: aiohttp.ClientSession, name: str
) -> None:
    async with local_engine(MODEL) as engine, running_edge([engine.url]) as edge:
        direct = await ask(http, engine.url, OF_THE_EDGE[name])
        answer = await ask(http, edge.url, OF_THE_EDGE[name])
    assert answer.status == direct.status
    assert json.loads(answer.body)["error"]["code"] in REFUSALS


@pytest.mark.parametrize("trickle", [False, True], ids=["", "byte by byte"])
@pytest.mark.parametrize("recording", RECORDED)
async def test_a_recorded_answer_comes_through_byte_for_byte(
    http: aiohttp.ClientSession, recording: str, trickle: bool
) -> None:
    stream = "-stream" in recording or "sse" in recording
    call = chat(model="tiny", replay=recording, trickle=trickle, stream=stream)
    if "usage" in recording:
        call = chat(model="tiny", replay=recording, stream=True, stream_options=CONTINUOUS)
    async with replay_engine() as engine, running_edge([engine.url]) as edge:
        [route] = edge.snapshot.routes
        routes = (replace(route, pool="tiny", served_as="tiny"),)
        edge.push(replace(edge.snapshot, pools=(Pool("tiny"),), routes=routes))
        edge.push(Credits((Credit("r0", 1),)))
        direct = await ask(http, engine.url, call)
        answer = await ask(http, edge.url, call)
    sent, received = (each.body for each in engine.received)
    asks_for_usage = stream and "usage" not in recording
    assert received == (sent[:-1] + ADDED if asks_for_usage else sent)
    assert answer.status == direct.status
    if "too-long-prompt" in recording:
        direct = _renamed(direct)
    assert differing(answer.headers, direct.headers) <= HEADERS
    comments = re.compile(rb"^:.*\n\n", re.MULTILINE)
    assert comments.sub(b"", answer.body) == comments.sub(b"", direct.body)


@pytest.mark.parametrize("trickle", [False, True], ids=["", "byte by byte"])
@pytest.mark.parametrize("recording", OF_ANOTHER_DIALECT)
async def test_a_recorded_answer_of_another_dialect_comes_through_byte_for_byte(
    http: aiohttp.ClientSession, recording: str, trickle: bool
) -> None:
    fields = {"replay": recording, "trickle": trickle, "stream": "-stream" in recording}
    body = json.dumps({"model": "real-80m", "max_tokens": 5} | fields).encode()
    call = Call(OF_ANOTHER_DIALECT[recording], body)
    async with replay_engine() as engine, running_edge([engine.url]) as edge:
        [route] = edge.snapshot.routes
        routes = (replace(route, pool="real-80m", served_as="real-80m"),)
        edge.push(replace(edge.snapshot, pools=(Pool("real-80m"),), routes=routes))
        edge.push(Credits((Credit("r0", 1),)))
        direct, answer = await ask(http, engine.url, call), await ask(http, edge.url, call)
    assert (answer.status, answer.body) == (direct.status, direct.body)
    assert differing(answer.headers, direct.headers) <= HEADERS | {
        "request-id"
    }  # as Anthropic calls it


async def test_a_path_that_the_models_engine_does_not_serve_is_said_in_our_words(
    http: aiohttp.ClientSession,
) -> None:
    body = json.dumps({"model": MODEL, "input": "a", "replay": "embeddings-err-not-found"}).encode()
    async with replay_engine() as engine, running_edge([engine.url]) as edge:
        answer = await ask(http, edge.url, Call("/v1/embeddings", body))
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (404, *documented("path"))
    assert f"The model {MODEL!r} does not serve /v1/embeddings" in error["message"]


def _renamed(direct: Answer) -> Answer:
    """An engine's verdict under the code that clients look for."""
    [code] = documented("verdict")
    body = re.sub(rb'"code":\d+', f'"code":"{code}"'.encode(), direct.body)
    return Answer(direct.status, direct.headers | {"content-length": str(len(body))}, body)


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


async def test_an_engines_failure_is_told_in_the_edges_words(http: aiohttp.ClientSession) -> None:
    async with replay_engine() as engine, running_edge([engine.url] * 2) as edge:
        answer = await ask(http, edge.url, chat(replay="drain-new-chat-nonstream"))
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["code"] in documented("failure")


async def test_the_list_says_no_more_than_there_is(http: aiohttp.ClientSession) -> None:
    async with local_engine(MODEL) as engine, running_edge([engine.url]) as edge:
        calls = (chat(), chat(stream=True))
        pairs = [(await ask(http, engine.url, c), await ask(http, edge.url, c)) for c in calls]
    headers = {name for one, other in pairs for name in differing(one.headers, other.headers)}
    assert HEADERS - {"date", "connection"} <= headers
    one, other = (json.loads(answer.body) for answer in pairs[0])
    assert FIELDS - {"created"} <= {name for name in one if one[name] != other.get(name)}

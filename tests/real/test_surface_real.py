"""Every dialect that the small model can speak: a bare engine and the edge say the same.

Where answers are compared the edge is one of the test's own before the second engine, which has the
adapter; what hangs on agents and the control plane is asked of the whole fleet.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import aiohttp
import openai
import pytest

from edge.core.problems import UNROUTED
from tests.fakes.edge import KEY, running_edge
from tests.real.adapter import ADAPTER
from tests.real.engine import MODEL, RealEngine
from tests.real.fleet import PROMPT, Fleet
from trimtab.model import EdgePolicy, Pool

Engines = tuple[RealEngine, RealEngine]
PUBLIC = "public"
CHAT = [{"role": "user", "content": PROMPT}]
GREEDY = {"temperature": 0}
GENERATING: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": PROMPT, "max_tokens": 8},
    "/v1/chat/completions": {"messages": CHAT, "max_tokens": 8},
    "/v1/responses": {"input": PROMPT, "max_output_tokens": 8},
    "/v1/messages": {"messages": CHAT, "max_tokens": 8},
}
WHOLE: list[tuple[str, dict[str, Any]]] = [
    *((path, {"model": MODEL} | body | GREEDY) for path, body in GENERATING.items()),
    *((path, {"model": ADAPTER} | body | GREEDY) for path, body in GENERATING.items()),
    ("/v1/messages/count_tokens", {"model": MODEL, "messages": CHAT}),
    ("/tokenize", {"model": MODEL, "prompt": PROMPT}),
    ("/tokenize", {"model": MODEL, "messages": CHAT}),
    ("/detokenize", {"model": MODEL, "tokens": [300, 301]}),
    ("/v1/responses", {"model": MODEL, "input": PROMPT, "max_output_tokens": 0}),
    ("/v1/messages", {"model": MODEL, "messages": CHAT}),
]
_ID = re.compile(r"(?<=[-_])(req_)?[0-9a-f]{16,32}(-\d+)?")
_TIME = re.compile(r'(?<=_at":)[\d.]+|(?<="created":)\d+')


class Answer(NamedTuple):
    """What came back, without what is of chance."""

    status: int
    content_type: str
    text: str


@asynccontextmanager
async def edge_before(
    engine: RealEngine, name: str = MODEL, policy: EdgePolicy | None = None
) -> AsyncIterator[str]:
    """The URL of an edge that calls the model of this engine so."""
    async with running_edge([engine.url], policy=policy) as edge:
        [route] = edge.snapshot.routes
        route = replace(route, pool=name, served_as=MODEL, adapters=(ADAPTER,))
        edge.push(replace(edge.snapshot, pools=(Pool(name),), routes=(route,)))
        yield edge.url


async def ask(url: str, path: str, body: dict[str, Any]) -> Answer:
    """Ask, with a key that only the edge looks at."""
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{url}{path}", json=body) as answer,
    ):
        text = _TIME.sub("0", _ID.sub("#", await answer.text()))
        return Answer(answer.status, answer.content_type, text)


def events(stream: str) -> tuple[list[tuple[str, Any]], str]:
    """A stream's events without their text, neighbours that are alike as one, and the text.

    Where a text is cut is of chance.
    """
    found: list[tuple[str, Any]] = []
    said = ""
    for text in stream.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in text.split("\n"))
        data = json.loads(fields["data"]) if fields["data"] != "[DONE]" else {}
        data.pop("sequence_number", None)
        said += _taken(data)
        event = fields.get("event", ""), data
        if event not in found[-1:]:
            found.append(event)
    return found, said


def _taken(data: dict[str, Any]) -> str:
    """Out of an event: its piece of the text."""
    if isinstance(data.get("delta"), str):
        return str(data.pop("delta"))
    taken = str(data["delta"].pop("text", "")) if "delta" in data else ""
    for choice in data.get("choices", ()):
        taken += choice.pop("text", None) or choice.get("delta", {}).pop("content", "") or ""
    return taken


@pytest.mark.parametrize(("path", "body"), WHOLE)
async def test_a_whole_answer_is_the_engines(
    engines: Engines, path: str, body: dict[str, Any]
) -> None:
    direct = await ask(engines[1].url, path, body)
    async with edge_before(engines[1]) as url:
        assert await ask(url, path, body) == direct


@pytest.mark.parametrize("model", [MODEL, ADAPTER])
@pytest.mark.parametrize("path", GENERATING)
async def test_a_stream_is_the_engines(engines: Engines, path: str, model: str) -> None:
    options = {"stream_options": {"include_usage": True}} if "completions" in path else {}
    body = {"model": model, "stream": True} | options | GREEDY | GENERATING[path]
    direct = await ask(engines[1].url, path, body)
    async with edge_before(engines[1]) as url:
        through = await ask(url, path, body)
    assert through[:2] == direct[:2] == (200, "text/event-stream")
    assert events(through.text) == events(direct.text)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", GENERATING)
async def test_the_model_is_called_as_the_caller_calls_it(
    engines: Engines, path: str, stream: bool
) -> None:
    async with edge_before(engines[1], PUBLIC) as url:
        answer = await ask(url, path, {"model": PUBLIC, "stream": stream} | GENERATING[path])
    assert MODEL not in answer.text
    assert f'"model":"{PUBLIC}"' in answer.text


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_a_stream_that_falls_silent_says_so_in_its_dialect_and_is_cut(
    engines: Engines, path: str
) -> None:
    got = b""
    body = {"model": MODEL, "stream": True} | GREEDY | GENERATING[path]
    body |= {name: 800 for name in body if name.startswith("max_")}
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        edge_before(engines[1], policy=EdgePolicy(idle_timeout_ms=1_500)) as url,
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{url}{path}", json=body) as answer,
    ):
        try:
            async for chunk in answer.content.iter_any():
                if got.count(b"delta") < 5 <= (got + chunk).count(b"delta"):
                    engines[1].sigstop_core()
                got += chunk
        except aiohttp.ClientPayloadError:
            got += b"<cut>"
        finally:
            engines[1].sigcont_core()
    name, data = got.decode().rpartition("\n\n")[0].rpartition("\n\n")[2].split("\ndata: ")
    assert (name, json.loads(data)["type"]) == ("event: error", "error")
    assert "1.5 s, the idle timeout" in data
    assert got.endswith(b"<cut>")


async def test_a_path_that_the_model_does_not_serve(engines: Engines) -> None:
    body = {"model": MODEL, "input": PROMPT}
    direct = await ask(engines[1].url, "/v1/embeddings", body)
    assert (direct.status, direct.text.encode()) == (404, UNROUTED)
    async with edge_before(engines[1]) as url:
        through = await ask(url, "/v1/embeddings", body)
    assert (through.status, "does not serve /v1/embeddings" in through.text) == (404, True)


def test_an_adapter_is_a_model_of_the_engine_that_has_it(fleet: Fleet, engines: Engines) -> None:
    said: Any = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    name = fleet.replica(engines[1])["replica"]
    completions = fleet.client.completions
    answers = [completions.with_raw_response.create(model=ADAPTER, **said) for _ in range(6)]
    assert {answer.headers["x-trimtab-replica"] for answer in answers} == {name}
    (text,) = {answer.parse().choices[0].text for answer in answers}
    assert text != completions.create(model=MODEL, **said).choices[0].text
    card = fleet.client.models.retrieve(ADAPTER).model_dump()
    assert (card["parent"], card["root"]) == (MODEL, ADAPTER)


def test_a_response_is_asked_for_where_it_was_made(fleet: Fleet) -> None:
    responses = fleet.client.responses
    said: Any = {"model": MODEL, "input": PROMPT}
    for _ in range(4):
        made = responses.create(**said, max_output_tokens=8)
        kept = responses.retrieve(made.id)
        assert (kept.id, kept.output_text) == (made.id, made.output_text)
        then = responses.create(**said, previous_response_id=made.id, max_output_tokens=2)
        assert then.previous_response_id == made.id
        with pytest.raises(openai.BadRequestError):
            responses.cancel(made.id)
    with pytest.raises(openai.NotFoundError, match="names none"):
        responses.retrieve("resp_0123456789abcdef0123456789abcdef")

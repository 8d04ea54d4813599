"""Telling vLLM from other programs."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web

from standalone import discover
from standalone.discover import Answer, Found, Kind

URL = "http://127.0.0.1:8000"
VERSION = Answer(200, b'{"version":"0.32.0"}')
MODELS = Answer(200, b'{"object":"list","data":[{"id":"tiny","object":"model","owned_by":"vllm"}]}')

CASES = [
    (VERSION, MODELS, Found(URL, Kind.VLLM, "0.32.0", ("tiny",))),
    (VERSION, Answer(401, b'{"error":"Unauthorized"}'), Found(URL, Kind.LOCKED, "0.32.0")),
    (VERSION, Answer(404, b'{"detail":"Not Found"}'), Found(URL, Kind.OTHER)),
    (VERSION, Answer(200, b'{"data":[]}'), Found(URL, Kind.OTHER)),
    (VERSION, Answer(200, MODELS.body.replace(b"vllm", b"other")), Found(URL, Kind.OTHER)),
    (VERSION, Answer(500, MODELS.body), Found(URL, Kind.OTHER)),
    (Answer(404, b"<html>"), MODELS, Found(URL, Kind.OTHER)),
    (Answer(200, b'{"version":1}'), MODELS, Found(URL, Kind.OTHER)),
    (Answer(200, b"\xff"), Answer(200, b""), Found(URL, Kind.OTHER)),
]


@pytest.mark.parametrize(("version", "models", "found"), CASES)
def test_judge(version: Answer, models: Answer, found: Found) -> None:
    assert discover.judge(URL, version, models) == found


@contextlib.asynccontextmanager
async def server(answers: Mapping[str, Answer], key: str = "") -> AsyncIterator[str]:
    """A program with these answers; its base URL."""

    async def handle(request: web.Request) -> web.Response:
        if key and request.headers.get("Authorization") != f"Bearer {key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        answer = answers.get(request.path, Answer(404))
        return web.Response(status=answer.status, body=answer.body)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_all_addresses_are_asked_and_answers_keep_their_order() -> None:
    vllm = {"/version": VERSION, "/v1/models": MODELS}
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with server(vllm) as engine, server({}) as other:
            urls = [f"http://127.0.0.1:{s.getsockname()[1]}" for s in (silent, nobody)]
            found = await discover.look([*urls, f"{engine}/", other])
    kinds = [item.kind for item in found]
    assert kinds == [Kind.SILENT, Kind.REFUSED, Kind.VLLM, Kind.OTHER]
    assert found[2].url == engine


async def test_the_models_of_an_endpoint_are_listed_with_the_key() -> None:
    listed = Answer(200, json.dumps({"data": [{"id": "m"}, {"id": "n"}]}).encode())
    async with server({"/v1/models": listed}, key="sk-a") as url:
        assert await discover.served(f"{url}/v1", "sk-a") == ("m", "n")
        assert await discover.served(f"{url}/v1", "sk-b") == ()
    assert await discover.served(f"{url}/v1", "sk-a") == ()

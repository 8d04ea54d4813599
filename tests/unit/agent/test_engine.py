"""The engine's API against a server that does everything an engine may do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from agent import engine
from agent.core.exposition import TEXT_LIMIT_BYTES
from agent.engine import Answered, EngineClient, Model, Probed, Refused, Silent
from trimtab.model import Outcome

KEY = "secret-key"
TOKENLESS = Probed(Outcome.HARD, "an answer without a token")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers each path as told; keeps the requests."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.seen: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        handler = self.handlers.get(request.path)
        return await handler(request) if handler else web.Response(status=404)

    def answer(self, path: str, text: str, status: int = 200) -> None:
        async def handler(_: web.Request) -> web.StreamResponse:
            return web.Response(text=text, status=status)

        self.handlers[path] = handler


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, EngineClient]]:
    fake = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with (
        TestServer(app) as running,
        engine.connect(str(running.make_url("")).rstrip("/"), KEY, timeout_s=0.3) as client,
    ):
        yield fake, client


async def test_metrics_come_as_they_are_over_one_connection(
    server: tuple[Server, EngineClient],
) -> None:
    fake, client = server
    fake.answer("/metrics", "vllm:x 1\n")
    fake.answer("/health", "")
    for _ in range(3):
        assert await client.metrics() == Answered(200, b"vllm:x 1\n")
        assert isinstance(await client.health(), Answered)
    transports = {request.transport for request in fake.seen if request.path == "/metrics"}
    assert len(transports) == 1


async def test_the_key_goes_to_v1_only(server: tuple[Server, EngineClient]) -> None:
    fake, client = server
    await client.metrics()
    await client.health()
    await client.version()
    await client.models()
    await client.probe("m", 1.0)
    keyed = {request.path for request in fake.seen if KEY in str(request.headers)}
    assert keyed == {"/v1/models", "/v1/completions"}


async def test_nobody_listens() -> None:
    async with engine.connect(f"http://127.0.0.1:{unused_port()}", "") as client:
        assert await client.metrics() == Refused()
        assert await client.probe("m", 1.0) == Probed(Outcome.HARD, "refused")
        assert await client.health() == Refused()


async def test_a_port_that_refuses_shows_beside_a_kept_connection() -> None:
    """An engine that was told to stop serves open connections on."""
    fake = Server()
    fake.answer("/metrics", "")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    server = TestServer(app)
    await server.start_server()
    async with engine.connect(str(server.make_url("")).rstrip("/"), "") as client:
        assert isinstance(await client.metrics(), Answered)
        assert server.runner is not None
        for site in list(server.runner.sites):
            await site.stop()
        assert isinstance(await client.metrics(), Answered)
        assert await client.health() == Refused()
    await server.close()


async def test_no_answer_in_time(server: tuple[Server, EngineClient]) -> None:
    fake, client = server

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    fake.handlers = {"/metrics": hang, "/health": hang, "/v1/completions": hang}
    assert await client.metrics() == Silent("no answer in 0.3 s")
    assert await client.health() == Silent("no answer in 0.3 s")
    assert await client.probe("m", 0.1) == Probed(Outcome.UNKNOWN, "no answer in 0.1 s")


async def test_an_answer_cut_short_is_silence(server: tuple[Server, EngineClient]) -> None:
    fake, client = server

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"vllm:")
        assert request.transport is not None
        request.transport.close()
        return response

    fake.handlers["/metrics"] = cut
    assert isinstance(await client.metrics(), Silent)


async def test_an_endless_answer_is_not_read_to_its_end(
    server: tuple[Server, EngineClient],
) -> None:
    fake, client = server
    fake.answer("/v1/models", " " * (TEXT_LIMIT_BYTES + 1))
    assert await client.models() == ()


async def test_redirects_are_not_followed(server: tuple[Server, EngineClient]) -> None:
    fake, client = server

    async def elsewhere(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/other"})

    fake.handlers["/metrics"] = elsewhere
    result = await client.metrics()
    assert isinstance(result, Answered)
    assert result.status == 302
    assert [request.path for request in fake.seen] == ["/metrics"]


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        (
            '{"data":[{"id":"a","max_model_len":4096,"root":"x"},{"id":"lora","parent":"a"}]}',
            200,
            (Model("a", 4096), Model("lora", None, "a")),
        ),
        ('{"data":[]}', 200, ()),
        ('{"error":"Unauthorized"}', 401, ()),
        ('{"data":[{"id":"a","max_model_len":"long"}]}', 200, ()),
        ('{"data":[{"id":"\\ud800"}]}', 200, ()),
        ('{"data":[{"id":""}]}', 200, ()),
        ("not json", 200, ()),
        ("\xff", 200, ()),
    ],
)
async def test_models(
    server: tuple[Server, EngineClient], text: str, status: int, expected: tuple[Model, ...]
) -> None:
    fake, client = server
    fake.answer("/v1/models", text, status)
    assert await client.models() == expected


async def test_version(server: tuple[Server, EngineClient]) -> None:
    fake, client = server
    fake.answer("/version", '{"version":"0.32.0"}')
    assert await client.version() == "0.32.0"
    fake.answer("/version", "[]")
    assert not await client.version()


@pytest.mark.parametrize(
    ("text", "status", "probed"),
    [
        ('{"choices":[{"text":"x","finish_reason":"length"}]}', 200, Probed(Outcome.OK)),
        ('{"choices":[{"text":"","finish_reason":"abort"}]}', 200, TOKENLESS),
        ('{"choices":[]}', 200, TOKENLESS),
        ("{}", 200, Probed(Outcome.SOFT, "HTTP 200")),
        ('{"error":{"message":"bad luck"}}', 500, Probed(Outcome.SOFT, "HTTP 500")),
        ('{"error":{"message":"EngineDeadError"}}', 500, Probed(Outcome.HARD, "HTTP 500")),
        ('{"error":{"message":"full"}}', 503, Probed(Outcome.OVERLOAD, "HTTP 503")),
        ('{"error":{"message":"no such task"}}', 404, Probed(Outcome.CLIENT, "HTTP 404")),
        ('{"error":"Unauthorized"}', 401, Probed(Outcome.UNKNOWN, "HTTP 401")),
    ],
)
async def test_probe(
    server: tuple[Server, EngineClient], text: str, status: int, probed: Probed
) -> None:
    fake, client = server
    fake.answer("/v1/completions", text, status)
    assert await client.probe("m", 1.0) == probed

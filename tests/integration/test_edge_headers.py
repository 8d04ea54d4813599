"""Headers in both directions, pages of other origins, compressed bodies, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from edge.answers import AnswerHeaders
from edge.core import headers
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.replay import ReplayEngine, replay_engine
from trimtab.model import EdgePolicy, Serving

CHAT = "/v1/chat/completions"
PAGE = "https://portal.lab"
ASKED: dict[str, object] = {"model": MODEL, "messages": []}
STREAMED = ASKED | {"stream": True, "replay": "chat-stream"}
JSON = {"content-type": "application/json"}
MIB = 1024 * 1024


@pytest.fixture
async def engine() -> AsyncIterator[ReplayEngine]:
    async with replay_engine() as running:
        yield running


@pytest.fixture
async def edge(engine: ReplayEngine) -> AsyncIterator[EdgeUnderTest]:
    async with running_edge([engine.url]) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        yield session


async def test_the_engine_sees_nothing_of_the_caller(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, engine: ReplayEngine
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    said = {
        "x-api-key": "k",
        "cookie": "session=1",
        "x-request-id": "job-7",
        "X-Vllm-Priority": "-9",
        "X-data-parallel-rank": "3",
        "X-Session-ID": "s",
        "proxy-authorization": "Basic eDp5",
        "te": "trailers",
        "x-forwarded-for": "10.0.0.1",
        "connection": "close, tracestate",
        "tracestate": "a=1",
        "traceparent": trace,
    }
    async with http.post(edge.url + CHAT, json=ASKED, headers=said) as answer:
        request_id = answer.headers["x-request-id"]
    [received] = engine.received
    assert sorted(received.headers) == [
        ("content-length", str(len(received.body))),
        ("content-type", "application/json"),
        ("host", engine.url.removeprefix("http://")),
        ("traceparent", trace),
        ("x-request-id", f"{request_id}-1"),
    ]
    async with http.get(f"{edge.admin_url}/decisions/{request_id}") as record:
        assert (await record.json())["caller_id"] == "job-7"


async def test_each_attempt_has_an_id_of_its_own(
    http: aiohttp.ClientSession, engine: ReplayEngine
) -> None:
    broken = ASKED | {"replay": "drain-new-chat-nonstream"}
    async with (
        running_edge([engine.url, engine.url]) as edge,
        http.post(edge.url + CHAT, json=broken) as answer,
    ):
        assert answer.status == 502
        assert answer.headers["x-trimtab-attempts"] == "2"
    ids = [dict(received.headers)["x-request-id"] for received in engine.received]
    assert ids == [f"{answer.headers['x-request-id']}-{number}" for number in (1, 2)]


@pytest.mark.parametrize("fields", [ASKED, STREAMED, ASKED | {"replay": "err-missing-messages"}])
async def test_answers_say_how_they_came_about(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, fields: dict[str, object]
) -> None:
    async with http.post(edge.url + CHAT, json=fields) as answer:
        said = answer.headers
        assert set(headers.ON_EVERY_ANSWER) | set(headers.ON_ROUTED_ANSWERS) <= {*said} | {
            name.lower() for name in said
        }
        assert (said["server"], said["x-trimtab-replica"]) == ("trimtab", "r0")
        assert said["x-trimtab-attempts"] == "1"
        assert "vary" not in said
        await answer.read()


async def test_the_route_is_told_to_nobody_if_so_configured(
    http: aiohttp.ClientSession, engine: ReplayEngine
) -> None:
    async with running_edge([engine.url], headers=AnswerHeaders(shows_route=False)) as edge:
        for fields in (ASKED, STREAMED):
            async with http.post(edge.url + CHAT, json=fields) as answer:
                assert answer.status == 200
                assert not [name for name in answer.headers if "trimtab" in name.lower()]


async def test_the_edges_own_answers_have_no_route_but_all_the_rest(
    http: aiohttp.ClientSession, edge: EdgeUnderTest
) -> None:
    for path in ("/", "/healthz", "/readyz", "/v1/models", "/v1/files", CHAT):
        async with http.get(edge.url + path) as answer:
            assert set(headers.ON_EVERY_ANSWER) <= {name.lower() for name in answer.headers}
            assert not [name for name in answer.headers if "trimtab" in name.lower()]


async def test_those_refused_together_come_back_apart(
    http: aiohttp.ClientSession, edge: EdgeUnderTest
) -> None:
    edge.set_serving("r0", Serving.CLOSED)
    told = set()
    for _ in range(20):
        async with http.post(edge.url + CHAT, json=ASKED) as answer:
            told.add(int(answer.headers["retry-after-ms"]))
    assert len(told) > 10
    assert all(5_000 <= each <= 7_500 for each in told)


@pytest.fixture
async def portal(engine: ReplayEngine) -> AsyncIterator[EdgeUnderTest]:
    async with running_edge(
        [engine.url], headers=AnswerHeaders(cors_origins=frozenset({PAGE}))
    ) as running:
        yield running


async def test_a_page_of_a_listed_origin_may_call(
    http: aiohttp.ClientSession, portal: EdgeUnderTest
) -> None:
    asks = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with (
        aiohttp.ClientSession() as without_key,
        without_key.options(portal.url + CHAT, headers=asks) as preflight,
    ):
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
        assert preflight.headers["x-request-id"]
    for fields in (ASKED, STREAMED, {}):
        async with http.post(portal.url + CHAT, json=fields, headers={"origin": PAGE}) as answer:
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "x-request-id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", ["https://evil.example", ""])
async def test_another_origin_gets_no_leave(
    http: aiohttp.ClientSession, portal: EdgeUnderTest, origin: str
) -> None:
    asks = {"access-control-request-method": "POST"} | ({"origin": origin} if origin else {})
    async with http.options(portal.url + CHAT, headers=asks) as preflight:
        assert preflight.status == 405
    async with http.post(portal.url + CHAT, json=ASKED, headers=asks) as answer:
        assert answer.status == 200
        assert answer.headers["vary"] == "origin"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def raw(edge: EdgeUnderTest, head: str) -> bytes:
    """The first head that comes back; nothing of a body is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(edge.url.rpartition(":")[2]))
    writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode())
    async with asyncio.timeout(20):
        said = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return said.lower()


GOOD = f"authorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: 10\r\n"


@pytest.mark.parametrize(
    ("head", "status", "closes"),
    [
        (GOOD + "expect: 100-continue\r\n", b"100", False),
        (GOOD + "expect: a-pony\r\n", b"417", True),
        ("content-length: 10\r\nexpect: 100-continue\r\n", b"401", True),
        (GOOD.replace(" 10", " 999999999") + "expect: 100-continue\r\n", b"413", True),
    ],
    ids=["go on", "a pony", "no key", "too large"],
)
async def test_who_asks_before_sending_is_answered_before(
    edge: EdgeUnderTest, head: str, status: bytes, closes: bool
) -> None:
    said = await raw(edge, head)
    assert said.startswith(b"http/1.1 " + status)
    assert (b"connection: close" in said) is closes


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b'{"model":"demo","messages":[]}')),
        ("deflate", zlib.compress(b'{"model":"demo","messages":[]}')),
        ("GZIP", gzip.compress(b'{"model":"demo","messages":[]}')),
        ("identity", b'{"model":"demo","messages":[]}'),
    ],
)
async def test_a_compressed_body_reaches_the_engine_opened(
    http: aiohttp.ClientSession,
    edge: EdgeUnderTest,
    engine: ReplayEngine,
    encoding: str,
    body: bytes,
) -> None:
    said = JSON | {"content-encoding": encoding}
    async with http.post(edge.url + CHAT, data=body, headers=said) as answer:
        assert answer.status == 200, await answer.text()
    [received] = engine.received
    assert received.body == b'{"model":"demo","messages":[]}'
    assert "content-encoding" not in dict(received.headers)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"x", 415),
        ("zstd", b"x", 415),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), 415),
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b"{}")[:-1], 400),
        ("deflate", zlib.compress(b"{}") + b"more", 400),
        ("gzip", gzip.compress(bytes(3 * MIB)), 413),
    ],
)
async def test_encodings_that_can_not_be_opened_are_refused(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, encoding: str, body: bytes, status: int
) -> None:
    said = JSON | {"content-encoding": encoding}
    async with http.post(edge.url + CHAT, data=body, headers=said) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["message"]
        assert answer.headers.get("accept-encoding") == ("gzip, deflate" if status == 415 else None)


async def blocks(count: int, model: bytes = b"demo") -> AsyncIterator[bytes]:
    """A long JSON body that takes no memory to send."""
    yield b'{"model":"%s","messages":[],"image":"' % model
    block = b"x" * MIB
    for _ in range(count):
        yield block
    yield b'"}'


async def peak_bytes(http: aiohttp.ClientSession, url: str, data: object, status: int) -> int:
    """The most memory that all parties together held while this was sent and answered."""
    said = JSON if not isinstance(data, bytes) else JSON | {"content-encoding": "gzip"}
    tracemalloc.start()
    try:
        async with http.post(url + CHAT, data=data, headers=said) as answer:
            assert answer.status == status
            await answer.read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("model", [b"demo", b"alias"])
async def test_a_large_body_is_held_once_also_when_the_model_is_renamed(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, engine: ReplayEngine, model: bytes
) -> None:
    engine.keeps_bodies = False
    assert await peak_bytes(http, edge.url, blocks(24, model), 200) < 1.5 * 24 * MIB


async def test_a_bomb_costs_little(http: aiohttp.ClientSession, engine: ReplayEngine) -> None:
    async with running_edge([engine.url], policy=EdgePolicy(body_limit_bytes=64 * MIB)) as edge:
        bomb = gzip.compress(bytes(48 * MIB))
        assert await peak_bytes(http, edge.url, bomb, 413) < 16 * MIB

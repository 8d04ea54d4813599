"""Audio through the edge: forms that pass as they come, and what becomes of them on the way."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from edge.upload import REPLAY_LIMIT_BYTES
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.wait import until
from trimtab.model import EdgePolicy

PATH = "/v1/audio/transcriptions"
HEADERS = {"authorization": f"Bearer {KEY}"}
SOUND = bytes(range(256)) * 400
LONG = SOUND * 30


def mark(sound: bytes) -> str:
    return hashlib.sha256(sound).hexdigest()[:16]


def form(*fields: tuple[str, str], sound: bytes = SOUND, file_first: bool = False) -> Any:
    data = aiohttp.FormData()
    if file_first:
        data.add_field("file", io.BytesIO(sound), filename="a.wav")
    for name, value in fields:
        data.add_field(name, value)
    if not file_first:
        data.add_field("file", io.BytesIO(sound), filename="a.wav")
    return data


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[SimEngine]:
    async with sim_engine("--served-model-name", "demo", "--speed", "20") as running:
        yield running


@pytest.fixture
async def edge(engine: SimEngine) -> AsyncIterator[EdgeUnderTest]:
    async with running_edge([engine.url]) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        yield session


async def test_the_official_sdk(edge: EdgeUnderTest) -> None:
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0) as client:
        file = ("a.wav", SOUND)
        heard = await client.audio.transcriptions.create(model="alias", file=file, language="de")
        assert heard.text.startswith(mark(SOUND))
        assert heard.model_dump()["sim"] == {"model": MODEL, "language": "de"}


async def test_translations(http: aiohttp.ClientSession, edge: EdgeUnderTest) -> None:
    url = f"{edge.url}/v1/audio/translations"
    async with http.post(url, data=form(("model", MODEL))) as answer:
        assert (await answer.json())["text"].startswith(mark(SOUND))


@pytest.mark.parametrize("file_first", [False, True])
@pytest.mark.parametrize("sound", [SOUND, LONG], ids=["short", "long"])
async def test_any_order_of_fields(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, sound: bytes, *, file_first: bool
) -> None:
    data = form(("model", "alias"), ("vllm_xargs", "{}"), sound=sound, file_first=file_first)
    async with http.post(edge.url + PATH, data=data) as answer:
        assert answer.status == 200, await answer.text()
        heard = await answer.json()
    assert heard["text"].startswith(mark(sound))
    assert heard["sim"] == {"model": MODEL}


async def test_a_stream(http: aiohttp.ClientSession, edge: EdgeUnderTest) -> None:
    data = form(("model", "alias"), ("stream", "true"))
    async with http.post(edge.url + PATH, data=data) as answer:
        assert answer.content_type == "text/event-stream"
        text = await answer.text()
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    assert len(events) > 2
    chunks = [json.loads(event) for event in events[:-1]]
    assert {(c["object"], c["model"]) for c in chunks} == {("transcription.chunk", "alias")}
    assert chunks[0]["choices"][0]["delta"]["content"].startswith(mark(SOUND))


async def test_a_file_passes_as_it_comes(http: aiohttp.ClientSession, edge: EdgeUnderTest) -> None:
    """The slot is taken and the engine reads while the caller still sends."""
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        head = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n'
        head += '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield head.encode() + LONG
        await go_on.wait()
        yield LONG + b"\r\n--b--\r\n"

    async def send() -> dict[str, Any]:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        async with http.post(edge.url + PATH, data=slowly(), headers=headers) as answer:
            heard: dict[str, Any] = await answer.json()
            return heard

    async with asyncio.TaskGroup() as group:
        sending = group.create_task(send())
        await until(lambda: edge.inflight("r0") == 1)
        (permit,) = edge.admission.running()
        await until(lambda: permit.speaking)  # so nobody waits for the engine yet
        go_on.set()
    assert sending.result()["text"].startswith(mark(LONG + LONG))
    assert permit.asked_s > permit.placement.started_s
    assert not permit.speaking


@pytest.mark.parametrize(
    ("data", "content_type", "status", "code"),
    [
        (b"{}", "application/json", 400, "invalid_form"),
        (b"{}", "multipart/form-data", 400, "invalid_form"),
        (b"x" * 9000, "multipart/form-data; boundary=b", 400, "invalid_form"),
        (b"--b\r\n", "multipart/form-data; boundary=b", 400, "invalid_form"),
        (
            b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nnope\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            404,
            "model_not_found",
        ),
    ],
)
async def test_what_cannot_be_served(
    http: aiohttp.ClientSession,
    edge: EdgeUnderTest,
    data: bytes,
    content_type: str,
    status: int,
    code: str,
) -> None:
    headers = {"content-type": content_type}
    async with http.post(edge.url + PATH, data=data, headers=headers) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["code"] == code
    assert edge.inflight("r0") == 0


async def test_the_engines_own_verdict_passes(
    http: aiohttp.ClientSession, edge: EdgeUnderTest
) -> None:
    data = aiohttp.FormData({"model": MODEL, "language": "de"}, default_to_multipart=True)
    async with http.post(edge.url + PATH, data=data) as answer:
        assert answer.status == 400
        assert "body.file" in await answer.text()


async def test_too_much_of_it(http: aiohttp.ClientSession, engine: SimEngine) -> None:
    """Also where nobody said before how much would come, and a replica has most of it."""
    async with running_edge([engine.url], policy=EdgePolicy(body_limit_bytes=len(LONG))) as edge:

        async def endless() -> AsyncIterator[bytes]:
            head = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n'
            head += '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            yield head.encode()
            while True:
                yield SOUND

        headers = {"content-type": "multipart/form-data; boundary=b"}
        async with http.post(edge.url + PATH, data=endless(), headers=headers) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["code"] == "request_too_large"
        await until(lambda: edge.inflight("r0") == 0)
        outcomes = edge.dispatch.replica("r0").outcomes
        assert {outcome.name for outcome in outcomes} == {"CLIENT"}, "the replica is not blamed"


@pytest.mark.parametrize(
    ("sound", "status"),
    [(SOUND, 200), (SOUND * (REPLAY_LIMIT_BYTES // len(SOUND) + 2), 502)],
    ids=["short", "long"],
)
async def test_another_replica_is_tried_while_it_can_be_sent_again(
    http: aiohttp.ClientSession, engine: SimEngine, sound: bytes, status: int
) -> None:
    async with sim_engine("--speed", "20") as failing:
        await failing.fault(error_rate=1.0)
        async with running_edge([failing.url, engine.url]) as edge:
            last = 0
            while not edge.dispatch.replica("r0").outcomes:
                data = form(("model", MODEL), sound=sound)
                async with http.post(edge.url + PATH, data=data) as answer:
                    last = answer.status
            assert last == status


async def test_a_caller_who_leaves_frees_the_slot(edge: EdgeUnderTest) -> None:
    host, port = edge.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n'
    head += '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        "content-type: multipart/form-data; boundary=b\r\ncontent-length: 9000000\r\n\r\n"
        f"{head}".encode()
        + SOUND
    )
    await until(lambda: edge.inflight("r0") == 1)
    writer.close()
    await until(lambda: edge.inflight("r0") == 0)

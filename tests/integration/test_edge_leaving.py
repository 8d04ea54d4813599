"""A caller that leaves: whatever it waited for, neither edge nor engine works for it any more."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from edge import attempt
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.local_engine import LocalEngine, local_engine
from tests.fakes.wait import until
from trimtab.model import Outcome
from trimtab.runtime.tasks import TaskRunner

BODY = {"model": MODEL, "max_tokens": 4_000, "ignore_eos": True}
CHAT = "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}
TEXT = "/v1/completions", {"prompt": "hi"}


@dataclass(frozen=True, slots=True)
class Phase:
    """Where a request is when its caller leaves: `there` says whether it has come so far."""

    name: str
    there: Callable[[EdgeUnderTest, LocalEngine, bytearray], bool]
    slots: int = 8
    fault: dict[str, object] = field(default_factory=dict)
    streams: tuple[bool, ...] = (False, True)


def queued(edge: EdgeUnderTest, _engine: LocalEngine, _heard: bytearray) -> bool:
    return edge.dispatch.totals() == (0, 1)


def in_prefill(edge: EdgeUnderTest, engine: LocalEngine, _heard: bytearray) -> bool:
    return edge.inflight("r0") == engine.held == 1


def decoding(_edge: EdgeUnderTest, engine: LocalEngine, _heard: bytearray) -> bool:
    return engine.held == 1 and engine.driver.tokens_total > 3


def streaming(_edge: EdgeUnderTest, _engine: LocalEngine, heard: bytearray) -> bool:
    return heard.count(b"data: ") > 3


def cut(edge: EdgeUnderTest, _engine: LocalEngine, heard: bytearray) -> bool:
    return bool(heard) and edge.dispatch.totals() == (0, 1)


DIES: dict[str, object] = {"die_mid_stream": {"mode": "api", "after_tokens": 5}}
PHASES = [
    Phase("queued", queued, slots=0),
    Phase("prefill", in_prefill, fault={"freeze": True}),
    Phase("plain", decoding, fault={"slow": 20}, streams=(False,)),
    Phase("streaming", streaming, fault={"slow": 20}, streams=(True,)),
    Phase("waiting to go on", cut, fault=DIES, streams=(True,)),
]
CASES = [
    pytest.param(phase, *call, stream, id=f"{phase.name}-{call[0]}-{stream}")
    for phase in PHASES
    for call in (CHAT, TEXT)
    for stream in phase.streams
]


@pytest.fixture
def _uncollected() -> Iterator[None]:
    """Nobody looks for circles of objects."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_uncollected")
@pytest.mark.parametrize(("phase", "path", "fields", "stream"), CASES)
async def test_who_leaves_is_worked_for_no_more(
    phase: Phase, path: str, fields: dict[str, object], stream: bool
) -> None:
    heard = bytearray()
    async with (
        local_engine() as engine,
        running_edge([engine.url], phase.slots) as edge,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
        TaskRunner() as runner,
    ):
        await engine.fault(**phase.fault)

        async def ask() -> None:
            body = BODY | fields | {"stream": stream}
            async with http.post(edge.url + path, json=body) as answer:
                async for chunk in answer.content.iter_any():
                    heard.extend(chunk)

        caller = runner.once("caller", ask())
        await until(lambda: phase.there(edge, engine, heard))
        (connection,) = map(weakref.ref, edge.callers.connections)
        caller.cancel()
        await until(lambda: edge.dispatch.totals() == (0, 0) and engine.held == 0)
        await until(lambda: _ended(edge, "client_disconnect") == 1)
        await until(lambda: connection() is None)  # nothing knows it, not even in a circle


WHOLE = b'data: {"choices":[{"index":0,"text":"hi","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@asynccontextmanager
async def endless_engine() -> AsyncIterator[str]:
    """It says that it is done, and never ends its answer."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(WHOLE)
        await asyncio.get_running_loop().create_future()
        return response

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "waits"])
async def test_who_has_the_whole_answer_has_been_answered(
    monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    if not leaves:
        monkeypatch.setattr(attempt, "TAIL_S", 0.05)
    heard = b""
    async with (
        endless_engine() as url,
        running_edge([url]) as edge,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
    ):
        body = BODY | TEXT[1] | {"stream": True}
        async with http.post(edge.url + TEXT[0], json=body) as answer:
            while not (leaves and heard.endswith(b"[DONE]\n\n")):
                if not (chunk := await answer.content.readany()):
                    break
                heard += chunk
        await until(lambda: _ended(edge, "ok") == 1)
        assert heard == WHOLE
        assert edge.dispatch.replica("r0").outcomes == {Outcome.OK: 1}


def _ended(edge: EdgeUnderTest, outcome: str) -> float:
    (family,) = edge.metrics.requests.collect()
    return sum(s.value for s in family.samples if s.labels["outcome"] == outcome)

"""The access log of a real edge: a line for each request, whatever became of it."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from edge.access import WAITING_MAX, AccessLog, AccessSettings
from edge.answers import AnswerHeaders
from edge.core import unrouted
from edge.core.access import Which
from edge.core.headers import Journey
from edge.metrics import EdgeMetrics
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.local_engine import LocalEngine, local_engine
from tests.fakes.scripted_engine import scripted_engine
from trimtab.runtime.service import ConfigError

ASK = {"model": MODEL, "prompt": "hello", "max_tokens": 3}
BEARER = {"authorization": f"Bearer {KEY}"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Logged:
    """An edge, and the lines that it wrote."""

    def __init__(self, edge: EdgeUnderTest, log: AccessLog, path: pathlib.Path) -> None:
        self.edge = edge
        self._log = log
        self._path = path

    async def lines(self, number: int) -> list[dict[str, Any]]:
        """So many, once they are written."""
        while True:
            await self._log.flush()
            lines = [json.loads(line) for line in self._path.read_text().splitlines()]
            if len(lines) >= number:
                return lines
            await asyncio.sleep(0.01)


@asynccontextmanager
async def logged(
    urls: list[str], path: pathlib.Path, which: Which = Which.ALL, **edge: Any
) -> AsyncIterator[Logged]:
    async with asyncio.timeout(30), running_edge(urls, **edge) as running:
        log = AccessLog("e1", running.metrics)
        log.use(AccessSettings(which, str(path)))
        running.endpoint.finished.append(log.add)
        running.endpoint.use(AnswerHeaders(), (), notes_clients=True)
        yield Logged(running, log, path)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    async with local_engine() as running:
        yield running


async def test_every_request_has_its_line(
    tmp_path: pathlib.Path, http: aiohttp.ClientSession, engine: LocalEngine
) -> None:
    async with logged([engine.url], tmp_path / "a.log") as log:
        url = log.edge.url
        own = BEARER | {"x-request-id": "mine-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        asked = f"{url}/v1/completions"
        async with http.post(asked, json=ASK | {"model": "alias"}, headers=own) as answer:
            told = answer.headers["x-request-id"]
        async with http.post(asked, json=ASK | {"stream": True}, headers=BEARER) as streamed:
            await streamed.read()
        await log.lines(2)
        await http.post(asked, json=ASK)
        await http.post(asked, json=ASK | {"model": "secret-name"}, headers=BEARER)
        await http.get(f"{url}/v1/secret-path", headers=BEARER)
        await http.get(f"{url}/v1/models", headers=BEARER)
        await http.get(f"{url}/healthz")
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"secret-rubbish\r\n\r\n")
        lines = await log.lines(7)
        writer.close()
    plain, stream, keyless, nameless, pathless, models, rubbish = lines
    assert (plain["request_id"], plain["caller_id"], plain["trace_id"]) == (told, "mine-1", TRACE)
    assert (plain["tenant"], plain["pool"], plain["model"]) == ("test", MODEL, "alias")
    assert (plain["code"], plain["outcome"], plain["replicas"]) == (200, "ok", ["r0"])
    assert (plain["path"], plain["client"]) == ("/v1/completions", "127.0.0.1")
    assert (plain["output_tokens"], plain["input_tokens"] > 0) == (3, True)
    assert (stream["stream"], stream["output_tokens"]) == (True, 3)
    assert 0 <= stream["ttft_ms"] <= stream["duration_ms"]
    assert (keyless["code"], keyless["error"], keyless["tenant"]) == (401, "invalid_api_key", "")
    assert (nameless["code"], nameless["error"]) == (404, "model_not_found")
    assert (nameless["tenant"], nameless["model"]) == ("test", "")
    assert (pathless["code"], pathless["path"]) == (404, "")
    assert (models["code"], models["path"], models["tenant"]) == (200, "/v1/models", "test")
    assert (rubbish["code"], rubbish["path"]) == (400, "")
    assert "secret" not in (tmp_path / "a.log").read_text()


async def test_who_left_and_who_was_tried_again(
    tmp_path: pathlib.Path, http: aiohttp.ClientSession, engine: LocalEngine
) -> None:
    async with (
        scripted_engine("stuck") as stuck,
        logged([stuck.url, engine.url], tmp_path / "a.log", Which.ERRORS) as log,
    ):
        asked = f"{log.edge.url}/v1/completions"
        stuck.first.clear()
        log.edge.dispatch.replica("r1").inflight += 4
        patience = aiohttp.ClientTimeout(0.3)
        with pytest.raises(TimeoutError):
            await http.post(asked, json=ASK, headers=BEARER, timeout=patience)
        (gone,) = await log.lines(1)
        stuck.first.set()
        stuck.status = 500
        await http.post(asked, json=ASK, headers=BEARER)
        again = (await log.lines(2))[1]
        log.edge.dispatch.replica("r1").inflight -= 4
    assert (gone["outcome"], gone["client_gone"], gone["code"]) == ("client_disconnect", True, 0)
    assert (again["code"], again["attempts"], again["replicas"]) == (200, 2, ["r0", "r1"])


async def test_a_file_that_is_moved_away_is_begun_anew_and_shared(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.log"
    logs = [AccessLog(f"e{n}", EdgeMetrics()) for n in range(2)]
    for log in logs:
        log.use(AccessSettings(Which.ALL, str(path)))

    async def write(number: int) -> None:
        for log in logs:
            for _ in range(number):
                log.add(unrouted.record(Journey("req"), unrouted.ending(200, ""), 1.0, 2.0))
        await asyncio.gather(*(log.flush() for log in logs))

    await write(500)
    path.rename(tmp_path / "a.log.1")
    await write(1)
    old = [json.loads(line) for line in (tmp_path / "a.log.1").read_text().splitlines()]
    assert [sum(line["edge"] == f"e{n}" for line in old) for n in range(2)] == [500, 500]
    assert len(path.read_text().splitlines()) == 2


async def test_what_finds_no_place_is_dropped_counted_and_said_once(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = EdgeMetrics()
    log = AccessLog("e1", metrics)
    with pytest.raises(ConfigError, match=r"^edge.access_log.file: cannot write .*: No such file"):
        log.use(AccessSettings(Which.ALL, str(tmp_path / "none" / "a.log")))
    (tmp_path / "there").mkdir()
    log.use(AccessSettings(Which.ALL, str(tmp_path / "there" / "a.log")))
    (tmp_path / "there").rename(tmp_path / "away")
    one = unrouted.record(Journey("req"), unrouted.ending(200, ""), 1.0, 2.0)
    for _ in range(2):
        log.add(one)
        await log.flush()
    assert [record.message for record in caplog.records] == [
        "the access log can't be written: lines are dropped"
    ]
    (tmp_path / "away").rename(tmp_path / "there")
    for _ in range(WAITING_MAX + 3):
        log.add(one)
    await log.flush()
    assert b"trimtab_edge_access_lines_dropped_total 5.0" in metrics.render()
    assert len((tmp_path / "there" / "a.log").read_text().splitlines()) == WAITING_MAX

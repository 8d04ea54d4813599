"""The status page by HTTP: what it serves, to whom, and that it changes nothing."""

from __future__ import annotations

import asyncio
import json
import pathlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from edge.beliefs import Beliefs
from edge.config import EdgeConfig
from edge.feed import Feed
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.page import ShownFleet, fleet_of, served, storm
from tests.fakes.peers import fake_agent, fake_edge
from tests.fakes.running_control_plane import config, running
from tests.fakes.scripted_engine import scripted_engine
from tests.fakes.wait import until
from trimtab import status
from trimtab.model import PoolUse, ReplicaUse, Serving, TenantUse
from trimtab.policy.autonomy import Mode
from trimtab.runtime import clock, page
from trimtab.runtime.page import WATCHERS_MAX, Page
from trimtab.runtime.service import ConfigError

CANARY = "canary in a coal mine"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def shown() -> ShownFleet:
    """A fleet with a sick replica."""
    at_s = clock.wall_s()
    return ShownFleet(fleet_of(["gpu0"], "gpu1"), storm(["gpu0", "gpu1"], at_s, 60), since_s=at_s)


async def told(http: aiohttp.ClientSession, url: str) -> Any:
    async with http.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return json.loads(await answer.text())


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Server-sent events, as a browser reads them."""
    name = ""
    async for line in answer.content:
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


async def test_nothing_comes_from_elsewhere_and_nothing_can_be_changed(
    http: aiohttp.ClientSession,
) -> None:
    async with served(shown()) as url:
        async with http.get(url) as answer:
            policy, html = answer.headers["content-security-policy"], await answer.text()
            tag = answer.headers["etag"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in html.replace("http-equiv", "")
        assert "<script>" not in html
        async with http.get(url, headers={"if-none-match": tag}) as answer:
            assert answer.status == 304
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for path in ("", "stream", "history", "explain/gpu1"):
                async with http.request(method, url + path) as answer:
                    assert answer.status == 405
        for path, code in (("assets/x", 404), ("explain/no", 404), ("history?span=1y", 400)):
            async with http.get(url + path) as answer:
                assert answer.status == code
        async with http.get(f"{url}?format=xml") as answer:
            assert (answer.status, await answer.text()) == (400, "format is one of html, json.\n")


async def test_a_stream_begins_whole_and_goes_on_with_changes(http: aiohttp.ClientSession) -> None:
    source = shown()
    async with served(source) as url, http.get(f"{url}stream") as answer, asyncio.timeout(15):
        stream = events(answer)
        name, whole = await anext(stream)
        assert (name, whole["replicas"]["gpu1"]["use"]) == ("whole", "ejected")
        source.fleet = fleet_of(["gpu0", "gpu2"], "gpu1")
        changes = [one async for _, one in _first(stream, 2)]
    assert any("gpu2" in change["replicas"] for change in changes)
    assert not any("gpu0" in change["replicas"] for change in changes)  # it is as it was
    cells = [cell for change in changes for cell in change["cells"]]
    assert {cell["span"] for cell in cells} >= {"15m"}
    assert cells[-1]["replicas"].keys() >= {"gpu0", "gpu1"}


async def _first(stream: AsyncIterator[tuple[str, Any]], most: int) -> AsyncIterator[Any]:
    for _ in range(most):
        yield await anext(stream)


async def test_two_watchers_see_the_same_and_too_many_are_refused(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "WATCHERS_MAX", 2)
    assert WATCHERS_MAX == 32
    source = shown()
    async with served(source) as url, http.get(f"{url}stream") as one, asyncio.timeout(15):
        first = events(one)
        await anext(first)
        source.fleet = fleet_of(["gpu0", "gpu2"], "gpu1")
        async with http.get(f"{url}public/stream") as two:
            _, public = await anext(events(two))
            async with http.get(f"{url}stream") as three:
                assert three.status == 503
        async for _, change in first:
            if "gpu2" in change["replicas"]:
                break
    assert "gpu2" in public["replicas"]


async def test_the_public_page_has_no_names_of_people(http: aiohttp.ClientSession) -> None:
    source = shown()
    source.tenants = (status.Tenant(CANARY, "m", 3),)
    source.requests = (status.Request("req_1", clock.wall_s(), CANARY, "m", "gpu0"),)
    async with served(source) as url:
        assert CANARY in json.dumps(await told(http, f"{url}?format=json"))
        public = await told(http, f"{url}public/?format=json")
        assert CANARY not in json.dumps(public)
        assert "h200a" not in json.dumps(public)
        assert (public["level"], public["requests"]) == ("DEGRADED", None)
        async with http.get(f"{url}public/explain/gpu1") as answer:
            assert answer.status == 404


async def test_what_does_not_read_is_cut_off_and_a_bug_ends_nothing(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    source = shown()
    watching = Page(source)
    queue = watching._channels[False].join({"replicas": {}, "events": []})
    for _ in range(page.BEHIND_MAX + 1):
        watching._tick(clock.wall_s())
    assert queue.get_nowait() is None
    async with served(source) as url:
        source.kept = None  # type: ignore[assignment]
        await until(lambda: "the status page misses moments" in caplog.text)
        source.kept = storm(["gpu0"], clock.wall_s(), 5)
        assert (await told(http, f"{url}?format=json"))["kind"] == "Status"


async def test_an_address_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: "):
            async with page.serving(web.Application(), "127.0.0.1", port, Page(shown())):
                pass


async def test_a_control_plane_shows_its_fleet(
    http: aiohttp.ClientSession, tmp_path: pathlib.Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = config(tmp_path, metrics=address)
    async with (
        running(settings) as target,
        fake_agent(target) as agent,
        fake_edge(target) as edge,
    ):
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        tenant = TenantUse("lab", queued=2, ages_ms=(900,), charged_work=40.0)
        pool = PoolUse("m", 2, requests=5, tenants=(tenant,))
        await edge.report((ReplicaUse("r1", 3, 3),), (pool,))
        async with http.get(f"http://{address}/stream") as answer, asyncio.timeout(10):
            async for _, change in events(answer):
                if change.get("tenants"):
                    break
        found = await told(http, f"http://{address}/?format=json")
        assert (found["seen_by"], found["fleet"], found["level"]) == ("control plane", "test", "OK")
        assert found["replicas"]["r1"]["inflight"] == 3
        assert found["tenants"][0]["work_ratio"] == 1.0
        assert "leads" in [event["what"] for event in found["events"]]
        why = await told(http, f"http://{address}/explain/r1")
        assert why["findings"][0]["concern"] in {"FINE", "LIMITS"}
        past = await told(http, f"http://{address}/history?span=1h")
        assert (past["step_s"], past["cells"]) == (5, 720)
        async with http.get(f"http://{address}/metrics") as answer:
            assert "trimtab_controlplane_leader 1.0" in await answer.text()


@asynccontextmanager
async def edges_page(urls: list[str]) -> AsyncIterator[tuple[EdgeUnderTest, Feed, str]]:
    """An edge's own page."""
    async with running_edge(urls) as edge:
        told_ = EdgeConfig("e1", "127.0.0.1", 1, "127.0.0.1", 2, "unix:/nowhere", None)
        feed = Feed(told_, edge.table, edge.dispatch, edge.admission, edge.metrics)
        parts = (edge.table, edge.dispatch, edge.admission, edge.endpoint, edge.proxy, feed)
        async with served(Beliefs(told_, *parts)) as url:
            yield edge, feed, url


async def test_an_edge_shows_what_it_believes_and_who_is_on_the_way(
    http: aiohttp.ClientSession,
) -> None:
    async with scripted_engine() as engine, edges_page([engine.url]) as (edge, _, url):
        engine.last.clear()
        ask = {"model": MODEL, "prompt": CANARY, "stream": True}
        sent = {"authorization": f"Bearer {KEY}", "x-request-id": "mine"}
        async with http.post(f"{edge.url}/v1/completions", json=ask, headers=sent) as answer:
            await answer.content.readany()
            found = await told(http, f"{url}?format=json")
            why = await told(http, f"{url}explain/r0")
            engine.last.set()
            await answer.read()
        (live,) = found["requests"]
        assert (live["tenant"], live["replica"], live["began"]) == ("test", "r0", True)
        assert live["request_id"]
        assert found["tenants"] == [
            {
                "tenant": "test",
                "pool": MODEL,
                "queued": 0,
                "oldest_wait_s": 0.0,
                "inflight": 1,
                "work_ratio": None,
            }
        ]
        assert (found["seen_by"], found["level"]) == ("edge", "OK")
        assert why["headline"] == "this edge sends it requests"
        assert CANARY not in json.dumps([found, why])
        assert KEY not in json.dumps([found, why])
        await until(lambda: not edge.proxy.live)
        assert (await told(http, f"{url}?format=json"))["requests"] == []


async def test_an_edge_alone_says_so_first(http: aiohttp.ClientSession) -> None:
    async with edges_page(["http://127.0.0.1:9"]) as (edge, feed, url):
        feed._silence.seconds = 7.0
        edge.dispatch.enter(Mode.AUTONOMOUS)
        edge.set_serving("r0", Serving.CLOSED)
        found = await told(http, f"{url}?format=json")
        text = "the control plane is silent for 7 s: this edge goes on alone"
        assert (found["level"], found["problems"][0]) == ("DOWN", text)
        assert ["heard", "7.0 s ago"] in found["facts"]
        why = await told(http, f"{url}explain/r0")
        assert why["headline"].startswith("this edge sends it no new requests: closed")

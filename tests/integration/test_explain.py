"""Why a request, a tenant, a model is as it is: asked with ctl of a whole fleet."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ctl import accounts, told
from ctl.client import Client
from ctl.exits import CtlError, Exit
from tests.fakes.edge import MODEL, EdgeUnderTest
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.leading import leading
from tests.fakes.peers import fake_agent
from tests.fakes.running_control_plane import admin
from tests.fakes.store import FakeStore
from tests.fakes.wait import until
from tests.fakes.whole_fleet import whole_fleet
from trimtab.v1 import admin_pb2, admin_pb2_grpc
from trimtab.views import Account, Concern

ASK = {"model": MODEL, "prompt": "canary", "max_tokens": 20, "stream": True}
KEY = {"authorization": "Bearer sk-test"}


@pytest.fixture
async def engine() -> AsyncIterator[SimEngine]:
    async with sim_engine() as running:
        yield running


async def test_a_request_a_tenant_and_a_model(engine: SimEngine, tmp_path: pathlib.Path) -> None:
    async with whole_fleet(tmp_path, {"r0": engine.url}) as edge:
        plane = Client(f"unix:{tmp_path}/control.sock")
        async with aiohttp.ClientSession(headers=KEY) as http:
            well = await ask(http, edge)
            await engine.fault(reject=True)
            named = {"x-request-id": "mine-1", "x-stainless-read-timeout": "1"}
            refused = await ask(http, edge, named)
            await engine.heal()
        found = await request(plane, well)
        assert found.concern is Concern.FINE
        assert "was answered by r0 after" in found.headline
        told_steps = [step.what for step in found.steps]
        assert told_steps == ["admitted", "pick", "first token", "attempt 1", "end"]
        assert "r0 of [r0 score 0.00 (0 of " in found.steps[1].text
        (record,) = found.records
        assert json.loads(record.json)["attempts"][0]["tokens"] == 20
        assert "canary" not in told.account(found) + record.json

        lost = await request(plane, refused)
        assert lost == await request(plane, "mine-1"), "found by what its caller calls it"
        assert lost.concern is Concern.LIMITS
        assert "was refused with 503 server_is_overloaded" in lost.headline
        assert any("an error 503, which is OVERLOAD (breaker" in s.text for s in lost.steps)

        tenant = await accounts.ask(plane, "tenant", "test")
        assert "had 1 of 2 requests refused in 5.0 min: demo had no room" in tenant.headline
        assert f"ctl explain request {refused}" in tenant.advice
        words = "demo is served, but refusals: 1 of 2 requests refused"
        async with asyncio.timeout(10):  # the edge reports twice a second
            while not (await accounts.ask(plane, "model", MODEL)).headline.startswith(words):
                pass
        for subject, name, words in (
            ("request", "req_0", "none of the 1 connected edges remembers a request 'req_0'"),
            ("tenant", "nobody", "no key is called 'nobody'; there are: test"),
            ("model", "gpt-9", "no pool serves 'gpt-9'; pools: demo"),
        ):
            with pytest.raises(CtlError, match=words) as caught:
                await accounts.ask(plane, subject, name)
            assert caught.value.code is Exit.NOT_FOUND


async def ask(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, headers: dict[str, str] | None = None
) -> str:
    async with http.post(f"{edge.url}/v1/completions", json=ASK, headers=headers) as answer:
        await answer.read()
        request_id = answer.headers["x-request-id"]
    await until(lambda: edge.proxy.decisions.get(request_id) is not None)
    return request_id


async def request(plane: Client, request_id: str) -> Account:
    async with asyncio.timeout(10):
        return await accounts.ask(plane, "request", request_id)


async def test_a_new_leader_still_tells_what_happened(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    async with leading(tmp_path, store=store) as (target, _), fake_agent(target) as agent:
        await agent.serve("r1")
        async with admin(target) as stub:
            await until_told(stub, "breaker moved")
    async with leading(tmp_path, store=store) as (target, loop), admin(target) as stub:
        told_events = await until_told(stub, "leads", times=2)
        whats = [event.what for event in told_events]
        assert whats[0] == "leads", "of the term before"
        assert "breaker moved" in whats[: whats.index("leads", 1)]
        assert [event.number for event in told_events] == list(range(1, len(whats) + 1))
        chosen = [event async for event in parts(stub, what="LEAD")]
        assert [event.what for event in chosen] == ["leads"] * 2
        assert [event async for event in parts(stub, what="leads", since_ms=1)] == []
        assert loop.journal.newest == len(whats)


async def parts(
    stub: admin_pb2_grpc.AdminServiceStub, **wanted: Any
) -> AsyncIterator[admin_pb2.FleetEvent]:
    async for part in stub.WatchEvents(admin_pb2.WatchEventsRequest(**wanted)):
        for event in part.events:
            yield event


async def until_told(
    stub: admin_pb2_grpc.AdminServiceStub, what: str, times: int = 1
) -> list[admin_pb2.FleetEvent]:
    async with asyncio.timeout(10):
        while True:
            found = [event async for event in parts(stub)]
            if [event.what for event in found].count(what) == times:
                return found

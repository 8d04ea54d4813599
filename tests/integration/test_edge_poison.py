"""The poison guard through a real edge: a prompt that breaks engines stops at the second one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import pytest

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.fragile import FAILS, KILLS, FragileEngine, fragile_engine
from trimtab.model import Credit, Credits

REPLICAS = 4


@dataclass(slots=True)
class Fleet:
    """An edge before fragile engines."""

    edge: EdgeUnderTest
    engines: list[FragileEngine]
    http: aiohttp.ClientSession

    async def ask(self, prompt: str, **fields: object) -> tuple[int, str, aiohttp.ClientResponse]:
        """Status and error code of an answer."""
        body = {"model": MODEL, "prompt": prompt, **fields}
        async with self.http.post(f"{self.edge.url}/v1/completions", json=body) as answer:
            found = await answer.json()
            return answer.status, found.get("error", {}).get("code", ""), answer

    @property
    def deaths(self) -> int:
        return sum(engine.deaths for engine in self.engines)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(fragile_engine()) for _ in range(REPLICAS)]
        edge = await stack.enter_async_context(running_edge([e.url for e in engines]))
        headers = {"authorization": f"Bearer {KEY}"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        yield Fleet(edge, engines, http)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_killer_takes_two_engines_and_is_then_refused(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    for n in range(8):
        assert (await fleet.ask(f"bread {n}"))[0] == 200
    caplog.set_level(logging.INFO, "edge")
    status, code, _ = await fleet.ask(KILLS.decode(), stream=stream)
    assert (status, code) == (502, "replica_lost")
    assert fleet.deaths == 2
    for _ in range(3):
        status, code, answer = await fleet.ask(KILLS.decode(), stream=stream)
        assert (status, code) == (422, "request_quarantined")
        assert answer.headers["x-should-retry"] == "false"
        assert 1 <= int(answer.headers["retry-after"]) <= 90  # 60, spread by half
    assert fleet.deaths == 2
    assert (await fleet.ask("bread"))[0] == 200
    assert sum(record.name == "edge.quarantine" for record in caplog.records) == 1
    assert KILLS.decode() not in "".join(str(record.__dict__) for record in caplog.records)


async def test_a_prompt_that_engines_fail_on_is_tried_twice_and_then_refused(
    fleet: Fleet,
) -> None:
    status, code, _ = await fleet.ask(FAILS.decode())
    assert (status, code) == (502, "replica_error")
    assert (await fleet.ask(FAILS.decode()))[:2] == (422, "request_quarantined")
    assert sum(FAILS in body for engine in fleet.engines for body in engine.taken) == 2
    assert (await fleet.ask(FAILS.decode() + " and bread"))[0] != 422


async def test_engines_that_are_dead_for_everybody_poison_nobody_who_comes_later(
    fleet: Fleet,
) -> None:
    for n in range(8):
        await fleet.ask(f"bread {n}")
    for engine in fleet.engines:
        engine.dead = True
    for n in range(10):
        assert (await fleet.ask(f"water {n}"))[0] in {502, 503}
        fleet.edge.dispatch.replica(f"r{n % REPLICAS}").suspicion.length_s = 0.0
    for engine in fleet.engines:
        engine.dead = False
    later = [(await fleet.ask(f"water {n}"))[0] for n in range(4, 10)]
    assert 422 not in later


async def test_copies_of_a_killer_that_wait_for_room_are_refused_there(fleet: Fleet) -> None:
    slots = (1, 1, 0, 0)
    fleet.edge.push(Credits(tuple(Credit(f"r{n}", count) for n, count in enumerate(slots))))
    answers = await asyncio.gather(*(fleet.ask(KILLS.decode()) for _ in range(6)))
    assert {status for status, _, _ in answers} == {422, 502}
    assert fleet.deaths == 2

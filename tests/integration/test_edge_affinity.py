"""Sessions through the edge on real sockets: turns meet on one replica, a flood does not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.wait import until
from trimtab.policy.affinity import BOUND

CHAT = "/v1/chat/completions"
NAMES = ("r0", "r1")


@pytest.fixture
async def engines() -> AsyncIterator[list[SimEngine]]:
    async with sim_engine() as one, sim_engine() as other:
        yield [one, other]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        yield session


def counted(edge: EdgeUnderTest, name: str, **labels: str) -> float:
    return edge.metrics.registry.get_sample_value(f"trimtab_edge_{name}_total", labels) or 0.0


async def served_by(
    http: aiohttp.ClientSession, edge: EdgeUnderTest, messages: list[object], session: str = ""
) -> str:
    """The replica that answers a request, the only one at the time."""
    before = {name: counted(edge, "upstream_attempts", replica=name, result="ok") for name in NAMES}
    body = {"model": MODEL, "max_tokens": 2, "messages": messages}
    headers = {"x-session-id": session}
    async with http.post(edge.url + CHAT, json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()
    (replica,) = (
        name
        for name in NAMES
        if counted(edge, "upstream_attempts", replica=name, result="ok") > before[name]
    )
    return replica


@pytest.mark.parametrize("named", [True, False])
async def test_turns_of_a_session_meet_on_one_replica(
    http: aiohttp.ClientSession, engines: list[SimEngine], named: bool
) -> None:
    async with running_edge([engine.url for engine in engines]) as edge:
        homes = set()
        for number in range(8):
            session = f"s{number}" if named else ""
            system = {"role": "system", "content": "be brief" if named else f"{number}" * 3_000}
            asked = [system, {"role": "user", "content": "hi"}]
            home = await served_by(http, edge, [*asked], session)
            asked += [{"role": "assistant", "content": "?"}, {"role": "user", "content": "well"}]
            assert await served_by(http, edge, [*asked], session) == home
            homes.add(home)
        assert homes == set(NAMES)
        assert counted(edge, "affinity", model=MODEL, went="home") == 16
        assert counted(edge, "affinity", model=MODEL, went="away") == 0


async def test_a_flood_of_one_session_spreads(
    http: aiohttp.ClientSession, engines: list[SimEngine]
) -> None:
    for engine in engines:
        await engine.fault(freeze=True)
    async with running_edge([engine.url for engine in engines], slots=16) as edge:
        # as long as a prompt may count, in a field that engines ignore
        body = {"model": MODEL, "prompt": "hi", "prompt_cache_key": "hot", "pad": "x" * 64_000}

        async def ask() -> None:
            async with http.post(f"{edge.url}/v1/completions", json=body):
                pass

        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(ask()) for _ in range(12)]
            await until(lambda: edge.dispatch.totals() == (12, 0))
            away, home = sorted(edge.inflight(replica) for replica in NAMES)
            assert 0 < away < home <= math.ceil(BOUND * 12 / 2)
            for caller in callers:
                caller.cancel()

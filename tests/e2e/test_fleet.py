"""The whole fleet as processes, under load, while parts of it die."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from tests.e2e.starter import Starter, Up
from tests.fakes.wait import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
DEADLINE_S = 60.0
KEY = "sk-e2e-0123456789abcdef"


@dataclass(slots=True)
class Load:
    """A few users who ask all the time, half of them streaming; SDK retries are off."""

    url: str
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    async def run(self, users: int) -> None:
        async with (
            openai.AsyncOpenAI(base_url=self.url, api_key=KEY, max_retries=0) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(users):
                _ = group.create_task(self._user(client, stream=number % 2 == 0))

    async def _user(self, client: openai.AsyncOpenAI, *, stream: bool) -> None:
        kind = "stream" if stream else "plain"
        while not self.stopped:
            try:
                await (_stream(client) if stream else _plain(client))
                self.done[kind] += 1
            except openai.APIError as error:
                self.failed[f"{kind} {error.code}"] += 1


async def _stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="sim-8b", prompt="hi", max_tokens=30, stream=True
    )
    finished = [chunk.choices[0].finish_reason async for chunk in stream]
    assert finished[-1] is not None, "a stream ended without a finish reason"


async def _plain(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="sim-8b", prompt="hi", max_tokens=30)
    assert whole.choices[0].finish_reason is not None


@dataclass(slots=True)
class Fleet:
    """A running fleet of two engines."""

    up: Up
    starter: Starter

    def replicas(self) -> list[dict[str, Any]]:
        """The items of `ctl get replicas -o json`."""
        target = f"unix:{self.starter.state}/control.sock"
        command = [sys.executable, "-P", "-m", "ctl", "--server", target]
        done = subprocess.run(
            [*command, "get", "replicas", "-o", "json"],
            capture_output=True,
            check=True,
            timeout=DEADLINE_S,
        )
        items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return items

    async def until_one(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until `ctl` shows a replica so."""
        async with asyncio.timeout(DEADLINE_S):
            while not any(map(condition, await asyncio.to_thread(self.replicas))):
                pass


@pytest.fixture
def fleet(starter: Starter) -> Iterator[Fleet]:
    engines = [starter.engine(), starter.engine()]
    args = [flag for url in engines for flag in ("--engine", url)]
    up = starter.start(*args, "--key", KEY)
    up.wait_for("ready")
    yield Fleet(up, starter)
    up.end()


async def under_load(fleet: Fleet, trouble: Callable[[Load], Awaitable[None]]) -> Load:
    """Run the trouble in the middle of traffic; what the users saw."""
    load = Load(f"http://{fleet.starter.listen}/v1")

    async def disturb() -> None:
        try:
            await until(lambda: min(load.done["plain"], load.done["stream"]) >= 4, DEADLINE_S)
            await trouble(load)
            before = load.done.copy()
            await until(
                lambda: all(load.done[k] >= before[k] + 8 for k in ("plain", "stream")), DEADLINE_S
            )
        finally:
            load.stopped = True

    await asyncio.gather(load.run(users=8), disturb())
    return load


async def test_a_killed_engine_costs_nothing(fleet: Fleet) -> None:
    async def trouble(_load: Load) -> None:
        fleet.starter.engines[0].kill()
        await fleet.until_one(lambda item: item["serving"] == "LOST")

    load = await under_load(fleet, trouble)
    assert load.failed == Counter()


@pytest.mark.parametrize("part", ["controlplane", "agent"])
async def test_a_killed_control_part_costs_nothing(fleet: Fleet, part: str) -> None:
    victim = fleet.up.child(part)

    async def trouble(load: Load) -> None:
        before = sum(load.done.values())
        victim.kill()
        await until(lambda: sum(load.done.values()) >= before + 8, DEADLINE_S)

    load = await under_load(fleet, trouble)
    assert load.failed == Counter()


async def test_a_killed_edge_is_back_with_its_table(fleet: Fleet) -> None:
    fleet.up.child("edge").kill()

    async def served() -> bool:
        load = Load(f"http://{fleet.starter.listen}/v1")
        async with openai.AsyncOpenAI(base_url=load.url, api_key=KEY, max_retries=0) as client:
            try:
                await _plain(client)
            except openai.APIError:
                return False
            return True

    async with asyncio.timeout(DEADLINE_S):
        while not await served():
            pass

"""Engines that die, hang, refuse, fail and crawl, one after another, under callers that also leave.

Whatever happens, each request ends exactly once, the caller and the edge agree how, and at the end
nothing is held: no slot, no credit, no request in any engine.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import aiohttp
import pytest

from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.local_engine import LocalEngine, local_engine
from tests.fakes.short_times import shorten
from tests.fakes.wait import until
from trimtab.model import EdgePolicy

REPLICAS, SLOTS, CALLERS = 3, 4, 16
EACH = 6  # requests that end under a fault before the next one comes
PATIENT_S = 40.0
FAULTS: Sequence[dict[str, Any]] = (
    {"die_mid_stream": {"mode": "api", "after_tokens": 5}},
    {"hang": True},
    {"reject": True},
    {"slow": 50},
    {"die_mid_stream": {"mode": "enginecore", "after_tokens": 5}},
    {"freeze": True},
    {"error_rate": 0.5},
    {"refuse": True},
    {"error_in_stream": 5},
    {"abort_after": 5},
    {"empty_stream": True},
)
BODY = {"model": MODEL, "prompt": "hi", "max_tokens": 20, "ignore_eos": True}


@dataclass(slots=True)
class Callers:
    """Ask until told to stop, and keep count of how it ended."""

    url: str
    http: aiohttp.ClientSession
    ends: Counter[str] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    over: bool = False

    async def run(self, dice: random.Random) -> None:
        """One after another."""
        while not self.over:
            stream, leaves_after = dice.random() < 0.6, dice.choice([0, 0, 0, 1, 4])
            self.ends[await self.ask(stream, leaves_after)] += 1

    async def ask(self, stream: bool, leaves_after: int) -> str:
        """How one request ended."""
        try:
            # each body another one: the same would look like a prompt that breaks engines
            body = BODY | {"stream": stream, "user": f"{next(self.numbers)}"}
            async with self.http.post(self.url, json=body) as answer:
                self.ids.append(answer.headers["x-request-id"])
                if answer.status != 200:
                    return f"status {answer.status}"
                if not stream:
                    self.texts.add((await answer.json())["choices"][0]["text"])
                    return "whole"
                return await self._listen(answer, leaves_after)
        except aiohttp.ClientPayloadError:
            return "cut"

    async def _listen(self, answer: aiohttp.ClientResponse, leaves_after: int) -> str:
        text, chunks = "", 0
        async for line in answer.content:
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]\n":
                self.texts.add(text)
                return "whole"
            if line.startswith(b'data: {"error"'):
                return "error event"
            text += json.loads(line.removeprefix(b"data: "))["choices"][0]["text"]
            chunks += 1
            if chunks == leaves_after:
                answer.close()
                return "left"
        return "ended without a word"


@pytest.mark.timeout(180)  # many requests, on a busy machine
async def test_each_request_ends_once_and_nothing_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten(monkeypatch)
    policy = EdgePolicy(idle_timeout_ms=500)
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(local_engine()) for _ in range(REPLICAS)]
        urls = [engine.url for engine in engines]
        edge = await stack.enter_async_context(running_edge(urls, SLOTS, policy))
        headers = {"authorization": f"Bearer {KEY}"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        callers = Callers(f"{edge.url}/v1/completions", http)
        async with asyncio.TaskGroup() as group:
            for seed in range(CALLERS):
                _ = group.create_task(callers.run(random.Random(seed)))
            for number, fault in enumerate(FAULTS):
                await _suffer(engines[number % REPLICAS], fault, callers)
            callers.over = True
        await until(lambda: edge.dispatch.totals() == (0, 0))
        await until(lambda: not any(engine.held for engine in engines))
        _agree(callers, edge)
        await _has_all_its_room(edge, engines, callers)


async def _suffer(engine: LocalEngine, fault: dict[str, Any], callers: Callers) -> None:
    await engine.fault(**fault)
    enough = callers.ends.total() + EACH
    await until(lambda: callers.ends.total() >= enough, PATIENT_S)
    await engine.heal()
    enough = callers.ends.total() + EACH
    await until(lambda: callers.ends.total() >= enough, PATIENT_S)


def _agree(callers: Callers, edge: EdgeUnderTest) -> None:
    ends, counted = callers.ends, _requests(edge)
    assert len(callers.texts) == 1  # nobody took a part for the whole
    assert ends["ended without a word"] == 0
    assert len(callers.ids) == len(set(callers.ids)) == ends.total()
    assert sum(counted.values()) == len(edge.exchanges) == ends.total()
    assert ends["whole"] <= counted["ok"] <= ends["whole"] + ends["left"]
    (family,) = edge.metrics.requests_in_flight.collect()
    assert not any(sample.value for sample in family.samples)
    assert all(edge.inflight(f"r{number}") == 0 for number in range(REPLICAS))
    assert min(ends["left"], ends["whole"]) > REPLICAS  # else nothing of this was shown


async def _has_all_its_room(
    edge: EdgeUnderTest, engines: Sequence[LocalEngine], callers: Callers
) -> None:
    """Every slot of every replica can be had again, and not one more."""
    for engine in engines:
        await engine.fault(freeze=True)
    edge.push(replace(edge.snapshot, policy=EdgePolicy()))  # nothing is too slow from here on
    room = REPLICAS * SLOTS
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(callers.ask(False, 0)) for _ in range(room + 1)]
        await until(lambda: edge.dispatch.totals() == (room, 1))
        for task in asked:
            task.cancel()
    await until(lambda: edge.dispatch.totals() == (0, 0))


def _requests(edge: EdgeUnderTest) -> dict[str, int]:
    """By outcome, as the metric says."""
    (family,) = edge.metrics.requests.collect()
    counts = Counter[str]()
    for sample in family.samples:
        counts[sample.labels["outcome"]] += int(sample.value)
    return dict(counts)

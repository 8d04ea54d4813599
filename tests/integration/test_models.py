"""Several models at once, end to end: pools, aliases, adapters, keys that may not ask for all."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from tests.fakes.edge import KEY, EdgeUnderTest, running_edge
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.wait import until
from tests.fakes.whole_fleet import whole_fleet
from trimtab.model import ApiKey, Credit, Credits, Pool, Serving
from trimtab.runtime.tasks import TaskRunner

SCOPED = "sk-scoped-0123456789"
KEYS = (
    ApiKey(hashlib.sha256(KEY.encode()).digest(), "all"),
    ApiKey(hashlib.sha256(SCOPED.encode()).digest(), "some", models=("small", "sql")),
)
BODY = {"prompt": "hello", "max_tokens": 3}


@dataclass(slots=True)
class Fleet:
    """Two pools, each with an engine of its own."""

    edge: EdgeUnderTest
    big: SimEngine
    small: SimEngine
    http: aiohttp.ClientSession

    async def ask(
        self, model: str | None, key: str = KEY, **changes: Any
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer of one request."""
        named = {} if model is None else {"model": model}
        headers = {"authorization": f"Bearer {key}"}
        url = f"{self.edge.url}/v1/completions"
        async with self.http.post(url, json=BODY | named | changes, headers=headers) as answer:
            return answer.status, await answer.json()

    async def models(self, key: str = KEY) -> dict[str, dict[str, Any]]:
        """What the key is shown."""
        headers = {"authorization": f"Bearer {key}"}
        async with self.http.get(f"{self.edge.url}/v1/models", headers=headers) as answer:
            listed = await answer.json()
        return {card["id"]: card for card in listed["data"]}


@pytest.fixture
async def fleet(tmp_path: pathlib.Path) -> AsyncIterator[Fleet]:
    async with (
        sim_engine("--max-num-seqs", "2", model="big") as big,
        sim_engine("--lora-modules", "sql=/secret/sql", model="small") as small,
        aiohttp.ClientSession() as http,
        whole_fleet(
            tmp_path,
            {"b": big.url, "s": small.url},
            pools=(Pool("big", ("gpt-4o", "default")),),
            keys=KEYS,
        ) as edge,
    ):
        yield Fleet(edge, big, small, http)


async def finished(engine: SimEngine) -> float:
    return await engine.gauge("request_success_total")


async def test_each_name_goes_where_it_means(fleet: Fleet) -> None:
    shown = await fleet.models()
    roots = {name: (card["root"], card["parent"]) for name, card in shown.items()}
    assert roots == {
        "big": ("big", None),
        "small": ("small", None),
        "gpt-4o": ("big", None),
        "default": ("big", None),
        "sql": ("sql", "small"),
    }
    before = await finished(fleet.big), await finished(fleet.small)
    for name in shown:
        status, answer = await fleet.ask(name)
        assert (status, answer["model"], answer["usage"]["completion_tokens"]) == (200, name, 3)
    assert (await finished(fleet.big) - before[0], await finished(fleet.small) - before[1]) == (
        3,
        2,
    )
    status, answer = await fleet.ask(None)
    assert (status, answer["error"]["code"]) == (400, "missing_required_parameter")

    shown = await fleet.models(SCOPED)
    assert list(shown) == ["small", "sql"]
    assert (await fleet.ask("sql", SCOPED))[0] == 200
    assert (await fleet.ask(None, SCOPED))[0] == 200
    for name in ("big", "gpt-4o"):
        status, answer = await fleet.ask(name, SCOPED)
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert answer["error"]["message"].endswith("Models served: small, sql.")
    headers = {"authorization": f"Bearer {SCOPED}"}
    async with fleet.http.get(f"{fleet.edge.url}/v1/models/big", headers=headers) as one:
        assert one.status == 404

    unload = {"lora_name": "sql"}
    async with fleet.http.post(f"{fleet.small.url}/v1/unload_lora_adapter", json=unload) as done:
        assert done.status == 200
    for stream in (False, True):
        status, answer = await fleet.ask("sql", stream=stream)
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert "Models served: big, default, gpt-4o, small." in answer["error"]["message"]


async def test_a_pool_that_is_full_makes_no_other_wait(fleet: Fleet) -> None:
    await fleet.big.fault(freeze=True)
    queues = fleet.edge.dispatch.pool
    async with TaskRunner() as tasks:
        waiting = [tasks.once("ask", fleet.ask("gpt-4o")) for _ in range(8)]
        await until(lambda: len(queues("big").queue) >= 2)
        assert (await fleet.ask("small"))[0] == 200
        assert (await fleet.ask("sql"))[0] == 200
        assert len(queues("small").queue) == 0
        await fleet.big.heal()
        assert [(await task)[0] for task in waiting] == [200] * 8


async def test_an_adapter_is_looked_for_on_all_that_may_have_it_and_missed_in_the_queue() -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        sim_engine() as first,
        sim_engine("--lora-modules", "sql=/x") as second,
        running_edge([first.url, second.url]) as edge,
        aiohttp.ClientSession(headers=headers) as http,
        TaskRunner() as tasks,
    ):

        async def ask() -> tuple[int, dict[str, Any]]:
            body = BODY | {"model": "sql"}
            async with http.post(f"{edge.url}/v1/completions", json=body) as answer:
                return answer.status, await answer.json()

        both = tuple(replace(route, adapters=("sql",)) for route in edge.snapshot.routes)
        edge.push(replace(edge.snapshot, routes=both))  # a moment ago the first had it too
        assert [(await ask())[0] for _ in range(4)] == [200] * 4
        edge.push(Credits((Credit("r0", 0), Credit("r1", 0))))
        waiting = tasks.once("ask", ask())
        await until(lambda: len(edge.dispatch.pool("demo").queue) == 1)
        none = tuple(replace(route, adapters=()) for route in edge.snapshot.routes)
        edge.push(replace(edge.snapshot, routes=none))
        status, answer = await waiting
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert edge.dispatch.totals() == (0, 0)


async def test_closed_replicas_of_an_adapter_are_said_to_be_its_own() -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    async with running_edge(["http://127.0.0.1:1", "http://127.0.0.1:2"]) as edge:
        first, second = edge.snapshot.routes
        closed = replace(first, adapters=("sql",), serving=Serving.CLOSED)
        edge.push(replace(edge.snapshot, routes=(closed, second)))
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{edge.url}/v1/completions", json=BODY | {"model": "sql"}) as answer,
        ):
            assert answer.status == 503
            assert "None of the 1 replicas of 'sql'" in await answer.text()

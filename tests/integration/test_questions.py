"""What the leader asks its edges over the streams that they have anyway."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from controlplane import questions
from controlplane.loop import ControlLoop
from controlplane.questions import BusyError
from edge.questions import PART_BYTES, tellers
from tests.fakes.edge import KEY, MODEL, running_edge
from tests.fakes.engines import sim_engine
from tests.fakes.leading import leading
from tests.fakes.peers import fake_agent, fake_edge
from tests.fakes.wait import until
from trimtab.model import Serving


@pytest.fixture
async def plane(tmp_path: pathlib.Path) -> AsyncIterator[tuple[str, ControlLoop]]:
    async with leading(tmp_path) as found:
        yield found


async def told(loop: ControlLoop, kind: str, argument: str = "") -> dict[str, tuple[bytes, str]]:
    return {t.edge: (t.content, t.error) for t in await loop.ask_edges(kind, argument)}


async def test_each_edge_answers_for_itself_and_one_that_is_older_is_named(
    plane: tuple[str, ControlLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "WITHIN_S", 0.5)
    target, loop = plane
    assert await told(loop, "decision") == {}
    large = bytes(range(256)) * 4096
    async with (
        fake_edge(target) as new,
        fake_edge(target, "e2") as old,
        fake_agent(target) as agent,
    ):
        await agent.serve("r1")
        new.tellers = {"decision": lambda request_id: request_id.encode(), "large": lambda _: large}
        old.is_older = True
        for edge in (new, old):
            await edge.until_serving("r1", Serving.OPEN)
        silent = (b"", "no answer in 0.5 s")
        assert await told(loop, "decision", "req_1") == {"e1": (b"req_1", ""), "e2": silent}
        assert not loop.refusals.counts, "what an older edge acks is no offence"
        old.is_older = False
        answers = await told(loop, "large")
        assert answers["e1"] == (large, "")
        assert answers["e2"] == (b"", "this edge knows no question of the kind 'large'")


async def test_what_is_asked_is_bounded(
    plane: tuple[str, ControlLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, loop = plane
    async with fake_edge(target) as edge, fake_agent(target) as agent:
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        edge.tellers = {"large": lambda _: b"x" * (PART_BYTES + 1)}
        _, error = (await told(loop, "large"))["e1"]
        assert error == "the answer has 1048577 bytes, and may have 1048576"
        monkeypatch.setattr(questions, "WITHIN_S", 0.5)
        edge.is_older = True
        async with asyncio.TaskGroup() as group:
            for _ in range(questions.OPEN_MAX):
                group.create_task(told(loop, "decision"))
            await until(lambda: len(edge.questions) == 1 + questions.OPEN_MAX)
            with pytest.raises(BusyError, match="16 questions"):
                await told(loop, "decision")


async def test_an_edge_tells_how_a_request_went_and_no_prompt() -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        sim_engine() as engine,
        running_edge([engine.url]) as edge,
        aiohttp.ClientSession(headers=headers) as http,
    ):
        ask = {"model": MODEL, "prompt": "canary", "max_tokens": 5}
        async with http.post(f"{edge.url}/v1/completions", json=ask) as answer:
            assert answer.status == 200
            request_id = answer.headers["x-request-id"]
        known = tellers(edge.proxy.decisions, edge.proxy.arrivals, edge.dispatch)
        record = json.loads(known["decision"](request_id))
        assert "canary" not in str(record)
        assert (record["path"], record["stream"]) == ("/v1/completions", False)
        assert record["prompt_tokens"] > 0
        assert record["attempts"][0]["tokens"] == 5
        assert known["decision"]("req_unknown") == b""

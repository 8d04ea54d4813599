"""Arrivals on their way from edges over the leader to ctl: whole, bounded, and without content."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest

from controlplane import questions
from ctl import recordings
from ctl.client import Client
from ctl.exits import CtlError, Exit
from edge import recall
from edge.core import arrivals
from edge.core.arrivals import Arrivals
from edge.core.decisions import Attempt, Ending, Notes, Record
from tests.fakes.edge import KEY, MODEL, running_edge
from tests.fakes.engines import sim_engine
from tests.fakes.leading import leading
from tests.fakes.peers import FakeEdge, facts, fake_agent, fake_edge, sample
from tests.fakes.wait import until
from trimtab.model import Outcome, Serving, Urgency
from trimtab.recording import Arrival, End, Replica, Tenant, parse, render
from trimtab.runtime import clock

HOUR_S = 3600.0


@pytest.fixture
async def target(tmp_path: pathlib.Path) -> AsyncIterator[str]:
    async with leading(tmp_path) as (address, _), fake_agent(address) as agent:
        await agent.say(facts("r1", kv_cache_tokens=9_000))
        await agent.report(sample("r1"))
        yield address


def memory(count: int, tenant: str = "t", every_s: float = 1.0) -> Arrivals:
    """One request a second, the last one two minutes ago; it began to remember an hour ago."""
    now_s = clock.now_s()
    kept = Arrivals(now_s - HOUR_S)
    for number in range(count):
        since_s = now_s - 120.0 - every_s * (count - 1 - number)
        tries = [Attempt("r1", since_s + 0.5, since_s + 3, Outcome.OK, "", 200, (), tokens=40)]
        who = ("id", "m", tenant, Urgency.BATCH, 0, since_s, Notes(None, tries), since_s + 1.0)
        kept.add(Record(*who, since_s + 3.0, Ending("ok"), stream=True, prompt_tokens=9))
    return kept


async def serve(edge: FakeEdge, kept: Arrivals) -> None:
    """Let it remember these, once it is known to the leader."""
    edge.tellers = {"arrivals": partial(recall.arrivals, kept)}
    await edge.until_serving("r1", Serving.OPEN)
    await edge.report()


async def test_all_edges_make_one_recording(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "BLOCK_ROWS", 16)
    async with fake_edge(target) as one, fake_edge(target, "e2") as other:
        await serve(one, memory(100))
        await serve(other, memory(20, tenant="u"))
        made = await recordings.gather(Client(target), "", 600.0)
    assert len(one.questions) == 7, "a block at a time"
    head = made.head
    assert (head.pool, head.edges, head.silent, head.missing_s) == ("m", 2, (), 0.0)
    assert (head.span_s, head.lead_s) == (600.0, recordings.LEAD_S)
    assert head.replicas == (
        Replica(name="r1", max_num_seqs=16, kv_cache_tokens=9_000, max_model_len_tokens=4096),
    )
    assert (head.policy.queue_limit, head.policy.queue_wait_s) == (256, 45.0)
    assert head.tenants == (Tenant("t", 4), Tenant("u", 4))
    assert len(made.arrivals) == 120
    last = made.arrivals[-1]
    assert last.at_s == pytest.approx(540.0, abs=5.0)
    assert last == Arrival(last.at_s, last.tenant, 9, 40, End.SERVED, True, 0, 0.5, 1.0, 3.0)
    assert parse(render(made)) == made


async def test_edges_that_tell_nothing_or_nonsense_are_named(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "WITHIN_S", 0.5)
    async with (
        fake_edge(target) as good,
        fake_edge(target, "e2") as older,
        fake_edge(target, "e3") as wrong,
    ):
        await serve(good, memory(10))
        for edge in (older, wrong):
            await serve(edge, memory(1))
        older.is_older = True
        short = b"\x1a\x01\x02"  # one row, of which the other columns say nothing
        wrong.tellers = {"arrivals": lambda _: short}
        made = await recordings.gather(Client(target), "m", 600.0)
        assert (made.head.edges, made.head.silent, len(made.arrivals)) == (1, ("e2", "e3"), 10)


async def test_what_is_not_remembered_does_not_count(target: str) -> None:
    async with fake_edge(target) as edge:
        kept = memory(100)
        kept.forgot_before_s = clock.now_s() - 180.0
        await serve(edge, kept)
        head = (await recordings.gather(Client(target), "m", 600.0)).head
        assert head.span_s == pytest.approx(120.0, abs=5.0)
        assert head.missing_s == pytest.approx(480.0, abs=5.0)
        assert head.lead_s == 0.0
        edge.tellers = {"arrivals": partial(recall.arrivals, Arrivals(clock.now_s()))}
        with pytest.raises(CtlError, match="too little is remembered of m") as young:
            await recordings.gather(Client(target), "m", 600.0)
        assert young.value.code is Exit.CONFLICT


@pytest.mark.parametrize(
    ("pool", "code", "words"),
    [("x", Exit.NOT_FOUND, "there is no model 'x'; there are m")],
)
async def test_what_cannot_be_simulated(target: str, pool: str, code: Exit, words: str) -> None:
    async with fake_edge(target) as edge:
        await serve(edge, memory(1))
        with pytest.raises(CtlError, match=words) as refused:
            await recordings.gather(Client(target), pool, 600.0)
        assert refused.value.code is code


async def test_a_real_edge_remembers_how_requests_went_and_no_word_of_them() -> None:
    headers = {"authorization": f"Bearer {KEY}", "x-stainless-retry-count": "1"}
    async with (
        sim_engine() as engine,
        running_edge([engine.url]) as edge,
        aiohttp.ClientSession(headers=headers) as http,
    ):
        for stream in (False, True):
            ask = {"model": MODEL, "prompt": "canary", "max_tokens": 5, "stream": stream}
            async with http.post(f"{edge.url}/v1/completions", json=ask) as answer:
                await answer.read()
        async with http.post(f"{edge.url}/v1/completions", json={"model": "x"}) as answer:
            assert answer.status == 404
        kept = edge.proxy.arrivals
        async with asyncio.timeout(10.0):
            await until(lambda: len(kept) == 2)
        rows = list(kept.block(0).of(MODEL, 0.0))
        assert [(row.end, row.stream, row.output_tokens, row.retry) for row in rows] == [
            (End.SERVED, 0, 5, 1),
            (End.SERVED, 1, 5, 1),
        ]
        assert rows[0].first_s == arrivals.NO_FIRST_S
        assert 0.0 <= rows[1].wait_s <= rows[1].first_s <= rows[1].lasted_s
        assert rows[0].prompt_tokens == rows[1].prompt_tokens > 0, "as the engine says"
        told = recall.arrivals(kept, f'{{"pool": "{MODEL}", "since_ms": 0}}')
        assert b"canary" not in told
        assert KEY.encode() not in told

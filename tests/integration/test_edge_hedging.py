"""Hedged streams: the first to begin is the caller's, the other one is gone at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from edge.admission import Permit
from edge.attempt import Result, Whole
from edge.core.decisions import Notes
from edge.core.headers import Journey
from edge.hedging import Hedger
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.scripted_engine import ScriptedEngine, scripted_engine
from tests.fakes.wait import until
from trimtab.model import Credit, Credits, Outcome, Pool, Serving
from trimtab.policy import hedge
from trimtab.policy.queue import Ticket
from trimtab.policy.retry import History
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner


@dataclass(slots=True)
class Case:
    """An edge before engines r0, r1 that hedges after some practice."""

    edge: EdgeUnderTest
    engines: Sequence[ScriptedEngine]
    http: aiohttp.ClientSession

    async def ask(self, *, stream: bool = True) -> Any:
        """Status and body, as far as it came."""
        body = {"model": MODEL, "prompt": "hi", "stream": stream}
        url = f"{self.edge.url}/v1/completions"
        async with self.http.post(url, json=body) as answer:
            try:
                return answer.status, (await answer.read()).decode()
            except aiohttp.ClientPayloadError:
                return answer.status, "<cut>"

    async def practise(self) -> None:
        """Let the edge learn what is usual; both get their part of it."""
        for replica in ("r0", "r1"):
            self.only(replica)
            for _ in range(hedge.SAMPLES_MIN + hedge.FRESHEN):
                assert (await self.ask())[0] == 200
        self.only("r0", "r1")

    def only(self, *names: str) -> None:
        """Let only these get new requests."""
        for name in ("r0", "r1"):
            self.edge.set_serving(name, Serving.OPEN if name in names else Serving.CLOSED)

    async def late(self) -> tuple[ScriptedEngine, ScriptedEngine]:
        """Once a request is on both: the engine that had it first, and the other."""
        await until(lambda: all(engine.running for engine in self.engines))
        a, b = self.engines
        return (b, a) if a.headers[-1]["x-request-id"].endswith("-2") else (a, b)

    def hedges(self, result: str) -> float:
        """What the metric says."""
        sample = self.edge.metrics.hedges.labels(MODEL, result)
        return sum(metric.samples[0].value for metric in sample.collect())

    def all_hedges(self) -> float:
        """However they ended."""
        return sum(self.hedges(result) for result in ("won", "lost", "failed"))

    def close(self) -> None:
        """No answer begins any more."""
        for engine in self.engines:
            engine.first.clear()

    async def record(self) -> Any:
        """The newest decision record."""
        async with self.http.get(f"{self.edge.admin_url}/decisions") as answer:
            return (await answer.json())[0]

    @property
    def idle(self) -> bool:
        return not self.edge.inflight("r0") and not self.edge.inflight("r1")


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(scripted_engine(n)) for n in ("one", "two")]
        edge = await stack.enter_async_context(running_edge([e.url for e in engines]))
        headers = {"authorization": f"Bearer {KEY}"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        pools = tuple(replace(pool, hedge=True) for pool in edge.snapshot.pools)
        edge.push(replace(edge.snapshot, pools=pools))
        yield Case(edge, engines, http)


async def test_a_late_stream_is_answered_by_another_replica(case: Case) -> None:
    await case.practise()
    case.close()
    async with TaskRunner() as runner:
        asking = runner.once("ask", case.ask())
        slow, quick = await case.late()
        quick.first.set()
        status, text = await asking
    assert (status, f'"id":"{quick.name}' in text, text.count("[DONE]")) == (200, True, 1)
    await until(lambda: slow.left == 1)
    assert (case.idle, case.hedges("won")) == (True, 1)
    ends = {one["fault"]: one["outcome"] for one in (await case.record())["attempts"]}
    assert ends == {"outrun": "client", "": "ok"}  # and nobody is to blame


async def test_the_first_one_may_still_win(case: Case) -> None:
    await case.practise()
    case.close()
    async with TaskRunner() as runner:
        asking = runner.once("ask", case.ask())
        slow, other = await case.late()
        slow.first.set()
        _, text = await asking
    assert f'"id":"{slow.name}' in text
    await until(lambda: other.left == 1)
    assert (case.idle, case.hedges("lost")) == (True, 1)


@pytest.mark.parametrize("hedge_fails_first", [True, False])
async def test_when_one_fails_the_other_goes_on(case: Case, hedge_fails_first: bool) -> None:
    await case.practise()
    case.close()
    async with TaskRunner() as runner:
        asking = runner.once("ask", case.ask())
        slow, hedged = await case.late()
        bad, good = (hedged, slow) if hedge_fails_first else (slow, hedged)
        bad.status = 500
        bad.first.set()
        await until(lambda: sum(map(case.edge.inflight, ("r0", "r1"))) == 1)
        good.first.set()
        status, text = await asking
    assert (status, f'"id":"{good.name}' in text) == (200, True)
    assert (case.idle, case.hedges("failed" if hedge_fails_first else "won")) == (True, 1)


@pytest.mark.parametrize(("status", "told"), [(400, 400), (500, 502)])
async def test_a_verdict_ends_both_and_two_failures_are_one(
    case: Case, status: int, told: int
) -> None:
    await case.practise()
    case.close()
    async with TaskRunner() as runner:
        asking = runner.once("ask", case.ask())
        for engine in await case.late():
            engine.status = status
        for engine in case.engines:
            engine.first.set()
        assert (await asking)[0] == told
    assert case.idle


async def test_a_caller_who_leaves_frees_both(case: Case) -> None:
    await case.practise()
    case.close()
    async with TaskRunner() as runner:
        asking = runner.once("ask", case.ask())
        await case.late()
        asking.cancel()
        await until(lambda: all(engine.left == 1 for engine in case.engines))
    await until(lambda: case.idle)


async def asked_while_late(case: Case, *, stream: bool = True) -> None:
    """One request that begins long after what was usual."""
    case.close()
    asked_s = clock.now_s()
    async with TaskRunner() as runner:
        asking = runner.once("ask", case.ask(stream=stream))
        await until(lambda: clock.now_s() > asked_s + 0.3)
        for engine in case.engines:
            engine.first.set()
        await asking


async def test_a_pool_that_does_not_hedge_has_no_hedges(case: Case) -> None:
    pools = tuple(replace(pool, hedge=False) for pool in case.edge.snapshot.pools)
    case.edge.push(replace(case.edge.snapshot, pools=pools))
    await case.practise()
    await asked_while_late(case)
    assert case.all_hedges() == 0


async def test_plain_answers_are_not_hedged(case: Case) -> None:
    await case.practise()
    await asked_while_late(case, stream=False)
    assert case.all_hedges() == 0


async def test_under_load_there_are_no_hedges(case: Case) -> None:
    await case.practise()
    case.edge.push(Credits((Credit("r0", 1), Credit("r1", 1))))  # half of one is none
    await asked_while_late(case)
    assert case.all_hedges() == 0


async def test_a_hedge_that_is_outrun_before_its_first_step_frees_its_slot(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge, loop = case.edge, asyncio.get_running_loop()
    hedger = Hedger(edge.table, edge.admission, edge.metrics)
    has_data: list[asyncio.Future[None]] = []

    async def attempt(permit: Permit) -> tuple[Result, str]:
        try:
            assert not permit.is_hedge
            if has_data:
                await has_data[0]
            permit.on_began()
            return Whole(), permit.route.replica
        finally:
            edge.admission.release(permit, Outcome.OK)

    def beside(permit: Permit) -> Permit | None:
        hedge = give(permit)
        has_data[0].set_result(None)  # in the very moment
        return hedge

    give = edge.admission.beside
    monkeypatch.setattr(edge.admission, "beside", beside)
    job: Any = SimpleNamespace(
        pool=Pool(MODEL, hedge=True),
        stream=object(),
        started=False,
        history=History(),
        passing=None,
        journey=Journey("req_1"),
        call=SimpleNamespace(path="/v1/completions"),
    )
    for number in range(60):
        if number == 59:
            has_data.append(loop.create_future())
        permit = await edge.admission.acquire(MODEL, Ticket(number, clock.now_s()), Notes())
        await hedger.run(job, permit, attempt)
    assert case.hedges("lost") == 1
    await until(lambda: case.idle)

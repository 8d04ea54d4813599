"""Workers of one edge have one memory of what ran under an Idempotency-Key, and one room."""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import pytest

from edge.core.openai import key_hash
from edge.core.replay import digest
from edge.ledger import Workers
from tests.fakes.edge import KEY, MODEL, EdgeUnderTest, running_edge
from tests.fakes.peers import fake_agent, fake_edge
from tests.fakes.running_control_plane import config, running
from tests.fakes.scripted_engine import ScriptedEngine, scripted_engine
from tests.fakes.wait import until
from trimtab.model import Credits, PoolUse, ReplicaUse
from trimtab.runtime.tasks import TaskRunner


def named(owner: int) -> str:
    """An Idempotency-Key that belongs to this worker."""
    names = (f"name-{number}" for number in range(100))
    keys = ((name, digest(key_hash(KEY), name.encode())) for name in names)
    return next(name for name, key in keys if int.from_bytes(key) % 2 == owner)


@dataclass(slots=True)
class Case:
    """Two workers, one engine."""

    workers: tuple[EdgeUnderTest, EdgeUnderTest]
    memories: tuple[AsyncExitStack, AsyncExitStack]
    sockets: tuple[pathlib.Path, ...]
    engine: ScriptedEngine
    http: aiohttp.ClientSession

    async def ask(
        self, worker: int, name: str, prompt: str = "hi", *, stream: bool = False
    ) -> tuple[int, bytes, bool]:
        """Status, body, whether it was a replay."""
        headers = {"idempotency-key": name, "authorization": f"Bearer {KEY}"}
        body = {"model": MODEL, "prompt": prompt, "stream": stream}
        url = f"{self.workers[worker].url}/v1/completions"
        async with self.http.post(url, json=body, headers=headers) as answer:
            replayed = "x-trimtab-replayed" in answer.headers
            return answer.status, await answer.read(), replayed


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
        sockets = tuple(pathlib.Path(root) / f"{number}.sock" for number in (1, 2))
        async with (
            scripted_engine() as engine,
            running_edge([engine.url]) as one,
            running_edge([engine.url]) as two,
            aiohttp.ClientSession() as http,
            AsyncExitStack() as first,
            AsyncExitStack() as second,
        ):
            await first.enter_async_context(one.proxy.ledgers.shared(Workers(sockets, 0)))
            await second.enter_async_context(two.proxy.ledgers.shared(Workers(sockets, 1)))
            yield Case((one, two), (first, second), sockets, engine, http)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("owner", [0, 1])
@pytest.mark.parametrize("runs", [0, 1])
async def test_what_one_worker_ran_any_replays(
    case: Case, owner: int, runs: int, stream: bool
) -> None:
    name = named(owner)
    status, body, replayed = await case.ask(runs, name, stream=stream)
    assert (status, replayed) == (200, False)
    for worker in (0, 1):
        assert await case.ask(worker, name, stream=stream) == (200, body, True)
        assert (await case.ask(worker, name, "ho", stream=stream))[0] == 422
    assert len(case.engine.asked) == 1


@pytest.mark.parametrize("owner", [0, 1])
async def test_a_duplicate_waits_for_the_one_at_the_other_worker(case: Case, owner: int) -> None:
    case.engine.first.clear()
    async with TaskRunner() as runner:
        asking = [runner.once("ask", case.ask(worker, named(owner))) for worker in (0, 1, 0, 1)]
        await until(lambda: case.engine.running == 1)
        case.engine.first.set()
        answers = [await one for one in asking]
    assert sorted(replayed for _, _, replayed in answers) == [False, True, True, True]
    assert len({body for _, body, _ in answers}) == 1
    assert len(case.engine.asked) == 1


@pytest.mark.parametrize("owner", [0, 1])
async def test_when_the_caller_at_the_other_worker_leaves_the_duplicate_runs(
    case: Case, owner: int
) -> None:
    case.engine.first.clear()
    async with TaskRunner() as runner:
        first = runner.once("first", case.ask(0, named(owner)))
        await until(lambda: case.engine.running == 1)
        second = runner.once("second", case.ask(1, named(owner)))
        first.cancel()
        await until(lambda: case.engine.left == 1)
        case.engine.first.set()
        status, _, replayed = await second
    assert (status, replayed) == (200, False)


async def test_a_worker_that_is_gone_is_done_without(case: Case) -> None:
    await case.memories[1].aclose()
    name = named(1)
    assert [(await case.ask(0, name))[2] for _ in range(2)] == [False, True]


async def test_a_worker_that_does_not_answer_is_done_without(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # and say nothing until the other has left
        writer.close()
        left.set()

    monkeypatch.setattr("edge.ledger.GRACE_S", 0.05)
    monkeypatch.setattr("edge.idempotency.WAIT_MAX_S", 0.05)
    await case.memories[1].aclose()
    left, name = asyncio.Event(), named(1)
    async with await asyncio.start_unix_server(hear, case.sockets[1]):
        assert (await case.ask(0, name))[0] == 200
        await left.wait()


async def test_the_room_of_workers_adds_up_to_what_the_engine_can_run(
    tmp_path: pathlib.Path,
) -> None:
    async with (
        running(config(tmp_path)) as target,
        fake_agent(target) as agent,
        fake_edge(target, "e1") as first,
        fake_edge(target, "e1:2") as second,
    ):
        workers = (first, second)
        await agent.serve("r1")
        await until(lambda: [worker.slots("r1") for worker in workers] == [10, 10])
        await second.report([ReplicaUse("r1", inflight=10)], [PoolUse("m", queued=30)])
        await until(lambda: second.slots("r1") > 12)
        pushed = [(u.version, worker, u.body) for worker in (0, 1) for u in workers[worker].updates]
    room, totals = [0, 0], []
    for _, worker, body in sorted(pushed, key=lambda push: push[0]):
        if isinstance(body, Credits):
            room[worker] = sum(credit.slots for credit in body.credits)
            totals.append(sum(room))
    assert sum(room) == max(totals) == 20  # 16 that the engine runs, and 4 to keep it busy

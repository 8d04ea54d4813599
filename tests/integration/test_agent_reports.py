"""The agent between simulated engines and a fake control plane, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
import pytest

from agent.config import AgentConfig, EngineConfig
from agent.main import serve_until
from tests.fakes.control_plane import FakeControlPlane
from tests.fakes.engines import SimEngine, sim_engine
from tests.fakes.wait import until
from trimtab.directives import Drain, Resume
from trimtab.model import (
    Bye,
    EngineFacts,
    EngineSample,
    EngineState,
    LimitSource,
    NodeHello,
    Probe,
    ProbeResult,
    Report,
)
from trimtab.policy import progress
from trimtab.runtime.tasks import TaskRunner

DEADLINE_S = 45.0
S = EngineState


@dataclass(slots=True)
class Node:
    """Two engines, one agent, one control plane."""

    control: FakeControlPlane
    engines: dict[str, SimEngine]

    def newest(self, replica: str) -> EngineSample | None:
        samples = self.control.samples(replica)
        return samples[-1] if samples else None

    async def until(self, replica: str, condition: Callable[[EngineSample], bool]) -> EngineSample:
        """A replica's first sample from now on that fits."""
        heard = len(self.control.samples(replica))
        fits = lambda: any(map(condition, self.control.samples(replica)[heard:]))  # noqa: E731
        await until(fits, DEADLINE_S)
        return next(filter(condition, self.control.samples(replica)[heard:]))

    async def until_state(self, replica: str, state: EngineState) -> EngineSample:
        return await self.until(replica, lambda sample: sample.state is state)


@contextlib.asynccontextmanager
async def agent(target: str, engines: dict[str, SimEngine]) -> AsyncIterator[None]:
    watched = tuple(EngineConfig(name, engine.url) for name, engine in engines.items())
    stop = asyncio.Event()
    async with TaskRunner() as tasks:
        _ = tasks.once("agent", serve_until(stop, AgentConfig("n1", target, watched)))
        yield
        stop.set()


@pytest.fixture
async def node(tmp_path: pathlib.Path) -> AsyncIterator[Node]:
    control = FakeControlPlane()
    target = f"unix:{tmp_path}/control.sock"
    server = await control.start(target)
    async with sim_engine("--max-num-seqs", "4") as a, sim_engine() as b:
        engines = {"a": a, "b": b}
        async with agent(target, engines):
            both = Node(control, engines)
            await both.until_state("a", S.READY)
            await both.until_state("b", S.READY)
            yield both
    await until(lambda: bool(control.all(Bye)))
    await server.stop(None)


@contextlib.asynccontextmanager
async def endless_requests(engine: SimEngine, count: int) -> AsyncIterator[None]:
    """Streams that go on until the block ends."""
    body = {"model": "demo", "prompt": "Tell me", "max_tokens": 4000, "stream": True}
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as streams:
        for _ in range(count):
            request = session.post(f"{engine.url}/v1/completions", json=body)
            await streams.enter_async_context(request)
        yield


async def test_says_who_it_is_what_it_found_and_how_it_goes(node: Node) -> None:
    assert isinstance(node.control.messages[0], NodeHello)
    assert node.control.messages[0].node == "n1"
    facts = node.control.facts("a")
    assert facts is not None
    assert facts.served_models == ("demo",)
    assert (facts.max_num_seqs, facts.max_num_seqs_source) == (4, LimitSource.COMMAND_LINE)
    assert facts.vllm_version
    assert facts.kv_cache_tokens
    assert facts.epoch
    other = node.control.facts("b")
    assert other is not None
    assert (other.max_num_seqs, other.max_num_seqs_source) == (256, LimitSource.ASSUMED)
    sample = node.newest("a")
    assert sample is not None
    assert (sample.running, sample.waiting, sample.epoch) == (0, 0, facts.epoch)
    assert [r.seq for r in node.control.all(Report)][:3] == [1, 2, 3]


async def test_facts_come_before_the_first_sample(node: Node) -> None:
    for replica in node.engines:
        told = [
            isinstance(message, EngineFacts)
            for message in node.control.messages
            if (isinstance(message, EngineFacts) and message.replica == replica)
            or (isinstance(message, Report) and any(s.replica == replica for s in message.engines))
        ]
        assert told[0]
        assert told.count(True) == 1


async def test_load_shows_and_is_no_failure(node: Node) -> None:
    async with endless_requests(node.engines["a"], 12):
        sample = await node.until("a", lambda s: (s.waiting or 0) > 0 and bool(s.ttft))
        assert sample.running == 4
        assert sample.state in {S.WARMING, S.READY}
        await node.until(
            "a", lambda s: bool(s.ttft and s.ttft.count) or bool(s.itl and s.itl.count)
        )
    await node.until("a", lambda s: s.running == 0)
    assert {s.state for s in node.control.samples("a")} <= {S.UNKNOWN, S.WARMING, S.READY}


async def test_a_frozen_core_behind_a_live_api_is_stalled_until_it_moves(node: Node) -> None:
    async with endless_requests(node.engines["a"], 2):
        await node.until("a", lambda s: s.running == 2 and s.state is S.READY)
        await node.engines["a"].fault(freeze=True)
        sample = await node.until_state("a", S.STALLED)
        suspect_s = progress.HANG_SUSPECT_S - progress.LOOK_JITTER_S
        assert sample.no_progress_ms >= 1000 * suspect_s
        assert "nothing moves" in sample.reason
        await node.engines["a"].heal()
        sample = await node.until_state("a", S.READY)
        assert sample.no_progress_ms == 0


async def test_a_silent_api_is_stalled_and_holds_up_nobody(node: Node) -> None:
    await node.engines["a"].fault(hang=True)
    sample = await node.until_state("a", S.STALLED)
    assert "does not answer" in sample.reason
    other = node.newest("b")
    assert other is not None
    assert other.state is S.READY
    assert other.metrics_age_ms is not None
    assert other.metrics_age_ms < sample.no_progress_ms
    await node.engines["a"].heal()
    await node.until_state("a", S.READY)


async def test_a_dead_engine_is_dead_and_its_return_is_another_start(node: Node) -> None:
    before = node.newest("a")
    assert before is not None
    await node.engines["a"].fault(die_mid_stream={"after_tokens": 0, "mode": "enginecore"})
    sample = await node.until_state("a", S.DEAD)
    assert sample.reason
    await node.until("a", lambda s: s.running is None)
    other = node.newest("b")
    assert other is not None
    assert other.state is S.READY
    await node.engines["a"].heal()
    after = await node.until_state("a", S.READY)
    assert after.epoch != before.epoch
    await until(lambda: (node.control.facts("a") or after).epoch == after.epoch)


async def test_drain_and_resume(node: Node) -> None:
    node.control.tell(Drain("nobody"))
    node.control.tell(Drain("a"))
    await node.until_state("a", S.DRAINING)
    node.control.tell(Resume("a"))
    await node.until_state("a", S.READY)
    assert {s.state for s in node.control.samples("b")} <= {S.UNKNOWN, S.READY}


async def test_probes(node: Node) -> None:
    node.control.tell(Probe(1, "a", 5000))
    node.control.tell(Probe(2, "nobody", 5000))
    await until(lambda: len(node.control.all(ProbeResult)) == 2)
    results = {result.probe_id: result for result in node.control.all(ProbeResult)}
    assert (results[1].ok, results[1].detail, results[1].replica) == (True, "", "a")
    assert (results[2].ok, results[2].detail) == (False, "not watched by this agent")
    await node.engines["b"].fault(freeze=True)
    node.control.tell(Probe(3, "b", 300))
    node.control.tell(Probe(4, "b", 300))
    await until(lambda: len(node.control.all(ProbeResult)) == 4)
    results = {result.probe_id: result for result in node.control.all(ProbeResult)}
    assert not results[3].ok
    assert (results[4].ok, results[4].detail) == (False, "a probe of it is under way")


async def test_a_control_plane_that_returns_hears_everything_again(
    tmp_path: pathlib.Path,
) -> None:
    target = f"unix:{tmp_path}/control.sock"
    control = FakeControlPlane()
    async with sim_engine() as a, agent(target, {"a": a}):
        server = await control.start(target)
        await until(lambda: len(control.samples("a")) > 1, DEADLINE_S)
        await server.stop(None)
        control.messages.clear()
        server = await control.start(target)
        await until(lambda: len(control.samples("a")) > 0, DEADLINE_S)
        assert [type(m) for m in control.messages[:2]] == [NodeHello, EngineFacts]
        assert control.all(Report)[0].seq == 1
        assert control.streams == 2
    await server.stop(None)

"""One size: start a control plane, connect everybody, cause decisions, measure."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.controlplane.peers import Agent, Edge, Log
from bench.controlplane.process import Server, Use, server
from bench.controlplane.said import PERIOD_S, Engine
from trimtab.model import EngineState, Serving
from trimtab.runtime import rpc
from trimtab.runtime.clock import now_s
from trimtab.runtime.tasks import TaskRunner

CONNECT_PER_S = 200.0
SETTLE_S = 6.0
DECISION_GAP_S = 1.0
DEAD_S = 1.5
AFTERMATH_S = 5.0
LAG_PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """What was found at one size."""

    agents: int
    edges: int
    span_s: float
    use: Use
    client_cores: float
    client_lag_s: Sequence[float]
    decisions: int
    lost_s: Sequence[float]
    """From the word that an engine is dead to each edge."""
    open_s: Sequence[float]
    """From the last probe that was answered to each edge."""
    credits_gaps_s: Sequence[float]
    answers_s: Sequence[float]
    """How long a health check takes: what every message waits for its turn, twice."""
    messages_in: int
    messages_out: int
    bytes_out: int
    credits_bytes: float
    """A push's."""
    faults: Sequence[str]


async def measure(agents: int, edges: int, span_s: float, seed: int, core: int) -> Row:
    """Run one size."""
    log = Log()
    fleet = [Agent(Engine(n, random.Random(f"{seed} a{n}")), log) for n in range(agents)]  # noqa: S311
    watchers = [Edge(f"edge-{n:03}", random.Random(f"{seed} e{n}"), log) for n in range(edges)]  # noqa: S311
    with server(core) as running:
        await running.ready()
        async with _connected(fleet, watchers, running.target):
            await asyncio.sleep(SETTLE_S)
            row = await _watch(fleet, edges, running, log, span_s)
        if '"ERROR"' in running.log or "Traceback" in running.log:
            log.faults.append(running.log[-2_000:])
    return row


async def _watch(
    fleet: Sequence[Agent], edges: int, running: Server, log: Log, span_s: float
) -> Row:
    log.clear()
    answers_s: list[float] = []
    lags_s: list[float] = []
    busy_s, began_s = _busy_s(), now_s()
    async with TaskRunner() as tasks:
        tasks.forever("answers", _answers(running.target, answers_s))
        tasks.forever("lag", _lag(lags_s))
        decisions = tasks.once("decisions", _decide(fleet, span_s))
        use = await running.use(span_s)
        took_s = now_s() - began_s
        client_cores = (_busy_s() - busy_s) / took_s
        counts = [counter.total() for counter in (log.sent, log.received, log.received_bytes)]
        credits_bytes = log.received_bytes["credits"] / max(1, log.received["credits"])
        gaps_s = list(log.credits_gaps_s)
        caused = await decisions
        await asyncio.sleep(AFTERMATH_S)
    return Row(
        agents=len(fleet),
        edges=edges,
        span_s=took_s,
        use=use,
        client_cores=client_cores,
        client_lag_s=lags_s,
        decisions=caused,
        lost_s=log.latencies_s.get(Serving.LOST, []),
        open_s=log.latencies_s.get(Serving.OPEN, []),
        credits_gaps_s=gaps_s,
        answers_s=answers_s,
        messages_in=counts[0],
        messages_out=counts[1],
        bytes_out=counts[2],
        credits_bytes=credits_bytes,
        faults=log.faults,
    )


async def _decide(fleet: Sequence[Agent], span_s: float) -> int:
    """Let one engine after another die and come back; how many."""
    victims = fleet[:: max(1, len(fleet) // max(1, int(span_s)))]
    end_s, turns = now_s() + span_s - DEAD_S, list[asyncio.Task[None]]()
    async with TaskRunner() as tasks:
        for agent in victims:
            if now_s() >= end_s:
                break
            turns.append(tasks.once(f"decision {agent.engine.number}", _die_and_return(agent)))
            await asyncio.sleep(DECISION_GAP_S * random.uniform(0.7, 1.3))  # noqa: S311
    return len(turns)


async def _die_and_return(agent: Agent) -> None:
    await agent.turn(EngineState.DEAD)
    await asyncio.sleep(DEAD_S)
    await agent.turn(EngineState.READY)


async def _answers(target: str, found_s: list[float]) -> None:
    async with rpc.channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            began_s = now_s()
            await stub.Check(health_pb2.HealthCheckRequest())
            found_s.append(now_s() - began_s)
            await asyncio.sleep(LAG_PERIOD_S)


async def _lag(found_s: list[float]) -> None:
    while True:
        due_s = now_s() + LAG_PERIOD_S
        await asyncio.sleep(LAG_PERIOD_S)
        found_s.append(now_s() - due_s)


def _busy_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@asynccontextmanager
async def _connected(
    fleet: Sequence[Agent], watchers: Sequence[Edge], target: str
) -> AsyncIterator[None]:
    peers: list[Agent | Edge] = [*fleet, *watchers]
    spread_s = max(PERIOD_S, len(peers) / CONNECT_PER_S)
    async with TaskRunner() as tasks:
        runs = [
            tasks.once(f"peer {n}", peer.run(target, spread_s * n / len(peers)))
            for n, peer in enumerate(peers)
        ]
        await asyncio.sleep(spread_s)
        yield
        for run in runs:
            run.cancel()
        for run in runs:
            with contextlib.suppress(asyncio.CancelledError):
                await run

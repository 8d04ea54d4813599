"""One cell of the table: one peer in one scenario, with fresh engines and a fresh proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import psutil

from bench.goodput import client, install
from bench.goodput.client import Client, End, Outcome
from bench.goodput.engines import Engine, engines, leashed
from bench.goodput.peers import Peer, Place, Program
from bench.goodput.scenario import SLO_S, Arrival, EngineKind, Scenario, Trouble, prompt_text
from bench.goodput.stats import Record, Sample
from trimtab.runtime.clock import now_s
from trimtab.runtime.tasks import TaskRunner

DRAIN_S = SLO_S + 6.0  # what was useful has ended by then: the longest job takes 4 s
READY_TIMEOUT_S = 90.0
SETTLE_S = 2.0
_SAMPLE_PERIOD_S = 0.25
_STOP_GRACE_S = 8.0
_CALIBRATION_S = (2.0, 8.0)  # warm up until, then measure until


class NotReadyError(Exception):
    """A proxy did not serve in time; says what it said."""


async def calibrate(kind: EngineKind, seed: int) -> float:
    """Tokens per second of both engines when full and asked directly, all requests in time."""
    async with engines(kind) as pair, client.session() as session, TaskRunner() as tasks:
        for number, engine in enumerate(pair):
            dice = random.Random(f"{seed} {number}")  # noqa: S311 - must repeat
            for _ in range(kind.slots + 2):
                asker = Client(session, [engine.url], dice)
                tasks.forever("caller", _call_forever(asker, kind, dice))
        warm_s, end_s = _CALIBRATION_S
        await asyncio.sleep(warm_s)
        before, started_s = await _tokens(pair), now_s()
        await asyncio.sleep(end_s - warm_s)
        return (await _tokens(pair) - before) / (now_s() - started_s)


async def _tokens(pair: Sequence[Engine]) -> int:
    return sum([(await engine.counts())["tokens_total"] for engine in pair])


async def _call_forever(asker: Client, kind: EngineKind, dice: random.Random) -> None:
    while True:
        tokens = dice.randint(*kind.output_tokens)
        await asker.ask(Outcome(Arrival(0.0, prompt_text(dice), tokens)), now_s())


async def run(
    peer: Peer,
    program: Program,
    scenario: Scenario,
    requests: Sequence[Arrival],
    capacity_tokens_s: float,
) -> Record:
    """Start everything, play the scenario, end everything."""
    async with (
        engines(scenario.kind) as pair,
        client.session() as session,
        _proxy(peer, program, pair, scenario.kind) as (urls, cpu_s),
    ):
        dice = random.Random(scenario.name)  # noqa: S311 - must repeat
        asker = Client(session, urls, dice, peer.keys)
        await _until_ready(asker, pair, peer)
        await asyncio.sleep(SETTLE_S)
        before, arrived = cpu_s(), [(await engine.counts())["arrived_total"] for engine in pair]
        samples: list[Sample] = []
        lags_s: list[float] = []
        async with TaskRunner() as tasks:
            tasks.forever("samples", _sample(pair, samples, lags_s, now_s()))
            for trouble in scenario.troubles:
                _ = tasks.once("trouble", _play(trouble, pair[trouble.engine]))
            outcomes = await asker.load(requests, DRAIN_S)
        after = [(await engine.counts())["arrived_total"] for engine in pair]
        lags_s.sort()
        return Record(
            scenario=scenario,
            capacity_tokens_s=capacity_tokens_s,
            outcomes=outcomes,
            samples=samples,
            attempts=sum(after) - sum(arrived),
            proxy_cpu_ratio=(cpu_s() - before) / (samples[-1].at_s or 1.0),
            lag_p99_s=lags_s[int(0.99 * (len(lags_s) - 1))],
        )


async def _play(trouble: Trouble, engine: Engine) -> None:
    started_s = now_s()
    await asyncio.sleep(trouble.start_s)
    await engine.fall_ill(trouble)
    await asyncio.sleep(max(0.0, started_s + trouble.end_s - now_s()))
    await engine.recover(trouble)


async def _sample(
    pair: Sequence[Engine], samples: list[Sample], lags_s: list[float], started_s: float
) -> None:
    """Read both engines' counters again and again, and how late this process is."""
    while True:
        counts = [await engine.counts() for engine in pair]
        at_s = now_s() - started_s
        arrived = tuple(count["arrived_total"] for count in counts)
        tokens = tuple(count["tokens_total"] for count in counts)
        samples.append(Sample(at_s, arrived, tokens))
        due_s = now_s() + _SAMPLE_PERIOD_S
        await asyncio.sleep(_SAMPLE_PERIOD_S)
        lags_s.append(now_s() - due_s)


@asynccontextmanager
async def _proxy(
    peer: Peer, program: Program, pair: Sequence[Engine], kind: EngineKind
) -> AsyncIterator[tuple[list[str], Callable[[], float]]]:
    """The peer's process, until the block ends: where to call it, and the CPU it has used."""
    folder = install.CACHE / "run" / peer.name
    place = Place(folder, free_ports(), [engine.port for engine in pair], kind)
    if not program.command:
        yield place.urls, lambda: 0.0
        return
    log = fresh(folder)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *leashed(*program.command, *peer.arguments(place)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **program.env},
            start_new_session=True,
        )
    try:
        yield [f"http://127.0.0.1:{place.ports[0]}"], lambda: process_cpu_s(process.pid)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_GRACE_S):
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _until_ready(asker: Client, pair: Sequence[Engine], peer: Peer) -> None:
    """Ask until it has answered from both engines, so that nobody starts on a cold connection."""
    deadline_s = now_s() + READY_TIMEOUT_S
    good = 0
    last = Outcome(Arrival(0.0, "ready?", 2))
    while now_s() < deadline_s:
        last = Outcome(Arrival(0.0, f"ready? {good}", 2))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await asker.ask(last, now_s())
        good += last.end is End.FINISHED
        arrived = [(await engine.counts())["arrived_total"] for engine in pair]
        if last.end is End.FINISHED and (all(arrived) or good >= 40):
            return
        await asyncio.sleep(0.02 if good else 0.3)
    folder = install.CACHE / "run" / peer.name
    raise NotReadyError(f"{peer.name}: {last.end.value}, status {last.status}; see {folder}/log")


def fresh(folder: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder / "log"


def free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def process_cpu_s(pid: int) -> float:
    """CPU time of a process and all that descend from it."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    return total

"""`./run bench workers`: what a second worker of an edge adds, and what it costs.

One or two workers share a port before one engine, and plain callers ask as fast as they can; one,
two, one, two, ... so that a noisy machine is noisy for both. All of it runs on the same cores:
where these do not suffice for two workers, the callers and the engine, answers/s can't double. What
a request costs the workers shows whether they hinder each other: if it is the same, each further
core gives what the first one gave.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import psutil
import uvloop

from bench.cluster.parts import Part
from bench.edge.control import control
from bench.edge.load import Tally, open_callers, request
from bench.goodput.cell import free_ports
from bench.goodput.engines import leashed
from trimtab.runtime.clock import now_s

RESULT = pathlib.Path(__file__).parent / "results" / "workers.md"
CALLERS = 64
READY_S, WARM_S = 30.0, 1.5
START_S = 2.0  # from the operators' address to that of the clients


@dataclass(frozen=True, slots=True)
class Cell:
    """One stretch."""

    workers: int
    answers_s: float
    workers_us: float
    """CPU of all workers for each answer."""
    others_us: float
    """Of the engine and the callers."""
    busiest_ratio: float
    """Of the answers' CPU, what the busiest worker had."""


async def measure(root: pathlib.Path, workers: int, seconds: float) -> Cell:
    """Start, ask, end."""
    config, ports = root / "trimtab.json", free_ports()
    config.write_text(json.dumps({"edge": {"workers": workers}}))
    listen = [f"127.0.0.1:{port}" for port in ports]
    own = ("--config", str(config), "--controlplane", f"unix:{root}/c.sock", "--state", str(root))
    where = ("--listen", listen[0], "--admin", listen[1])
    edge = (sys.executable, "-P", "-m", "edge", *own, *where)
    parts = [
        Part(f"edge{n}", (*edge, "--worker", str(n)), root / f"edge{n}.log")
        for n in range(1, workers + 1)
    ]
    command = leashed(sys.executable, "-P", "-m", "bench.edge.engine")
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as engine:
        try:
            assert engine.stdout is not None
            urls = [f"http://127.0.0.1:{port}" for port in json.loads(engine.stdout.readline())]
            async with control(f"unix:{root}/c.sock", urls):
                for part in parts:
                    part.start()
                for place in range(workers):
                    await _listens(ports[1] + place)
                await asyncio.sleep(START_S)
                pids = [part.pid for part in parts]
                return await _ask(ports[0], pids, (engine.pid, os.getpid()), seconds)
        finally:
            for part in parts:
                part.end()
            engine.kill()


async def _ask(port: int, workers: Sequence[int], others: Sequence[int], seconds: float) -> Cell:
    tally = Tally()
    callers = await open_callers(port, CALLERS, request(port), tally)
    await asyncio.sleep(WARM_S)
    before, began_s = [_cpu_s(pid) for pid in (*workers, *others)], now_s()
    tally.clear()
    await asyncio.sleep(seconds)
    span_s, answers, errors = now_s() - began_s, tally.answers, tally.errors
    used = [_cpu_s(pid) - was for pid, was in zip((*workers, *others), before, strict=True)]
    for caller in callers:
        caller.close()
    assert answers, "nobody was answered"
    assert not errors, f"{errors} errors"
    own = used[: len(workers)]
    us = 1e6 / answers
    rest = sum(used[len(workers) :])
    return Cell(len(workers), answers / span_s, us * sum(own), us * rest, max(own) / sum(own))


async def _listens(port: int) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.1)


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def page(cells: Sequence[Cell], command: str) -> str:
    """The result as Markdown."""
    one, two = ([cell for cell in cells if cell.workers == count] for count in (1, 2))
    costs = median(cell.workers_us for cell in one), median(cell.workers_us for cell in two)
    gain = median(cell.answers_s for cell in two) / median(cell.answers_s for cell in one)
    rows = [
        f"| {cell.workers} | {cell.answers_s:.0f} | {cell.workers_us:.0f} | {cell.others_us:.0f} |"
        f" {cell.busiest_ratio:.2f} |"
        for cell in cells
    ]
    cores, rest = len(os.sched_getaffinity(0)), median(cell.others_us for cell in two)
    possible = cores * costs[0] / (costs[0] + rest)
    return "\n".join([
        "# Workers of one edge\n",
        f"Generated by `{command}`, on {cores} cores, on which the engine and {CALLERS} callers",
        "run, too. Plain chat requests of 1.7 KB as fast as they are answered; CPU in microseconds"
        " a request.\n",
        "| workers | answers/s | CPU of the workers | of engine and callers | busiest's part |",
        "|--:|--:|--:|--:|--:|",
        *rows,
        "",
        f"Answers/s: two workers do {gain:.2f} times what one does. With what engine and callers"
        f" take, {cores} cores",
        f"have room for {possible:.2f} times one worker's. What a request costs two workers is"
        f" {costs[1] / costs[0]:.2f} of what it costs one,",
        f"so where each has a core of its own two do {2 * costs[0] / costs[1]:.2f} times what one"
        " does.\n",
    ])  # fmt: skip


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(prog="./run bench workers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=RESULT, help="the page to write")
    args = parser.parse_args()
    cells = []
    for count in [1, 2] * args.rounds:
        with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
            cells.append(uvloop.run(measure(pathlib.Path(root), count, args.seconds)))
        print(cells[-1], flush=True)
    text = page(cells, "./run bench workers")
    args.out.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

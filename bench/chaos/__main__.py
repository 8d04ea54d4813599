"""`./run bench chaos`: ten minutes in which everything goes wrong, under load; who was lied to?

A real edge, control plane and agents over simulated engines; faults and callers are drawn from the
seed. Writes bench/results/chaos.md; exit status 1 when a promise was not kept (bench/chaos/judge).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import aiohttp
import psutil

from bench.chaos import judge, report
from bench.chaos.callers import NEVER_S, Crowd, End
from bench.chaos.faults import FIRST_S, Strike, schedule
from bench.chaos.fleet import ENGINES, SLOTS, Fleet, until
from bench.chaos.judge import Growth
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner

RESULT = pathlib.Path(__file__).parents[1] / "results" / "chaos.md"
LOAD = 0.6
LEAST_MINUTES = 1.0
RECORDS_PERIOD_S, RECORDS_LIMIT = 4.0, 250
QUIET_S = 20.0
_MB = 1024 * 1024


class Watch:
    """What is read off the edge during a run: its records before they are dropped, its memory."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.records: dict[str, dict[str, Any]] = {}
        self.memory: list[tuple[float, float]] = []

    async def forever(self) -> None:
        """Read again and again."""
        edge = psutil.Process(self._fleet.parts["edge"].pid)
        while True:
            await self.read()
            self.memory.append((clock.now_s(), edge.memory_info().rss / _MB))
            await asyncio.sleep(RECORDS_PERIOD_S)

    async def read(self) -> None:
        """The newest records."""
        for record in await self._fleet.decisions(RECORDS_LIMIT):
            self.records[record["request_id"]] = record


async def chaos(root: pathlib.Path, length_s: float, seed: int) -> report.Run:
    """One run."""
    timeout, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        fleet = Fleet(root, http, seed)
        try:
            await fleet.start()
            return await _run(fleet, http, length_s, seed)
        finally:
            fleet.close()


async def _run(fleet: Fleet, http: aiohttp.ClientSession, length_s: float, seed: int) -> report.Run:
    crowd, watch = Crowd(http, fleet.url, LOAD, seed), Watch(fleet)
    strikes, began_s = schedule(seed, length_s), clock.now_s()
    async with TaskRunner() as runner:
        runner.forever("watch", watch.forever())
        callers = runner.once("callers", crowd.run())
        for strike in strikes:
            await asyncio.sleep(max(0.0, began_s + strike.at_s - clock.now_s()))
            print(f"{strike.at_s:4.0f} s  {strike.fault.title} ({strike.victim})", flush=True)
            await _strike(fleet, crowd, strike)
        await asyncio.sleep(max(0.0, began_s + length_s - clock.now_s()))
        crowd.stopped = True
        await callers
        memory = list(watch.memory)
        rest = await _quiet(fleet)
        filled, busy = await _fill(fleet, crowd)
        rest |= await _quiet(fleet)
        await watch.read()
    records = list(watch.records.values())
    violations = judge.violations(crowd.asks, records, await fleet.metrics())
    growth = Growth(memory, RECORDS_PERIOD_S)
    violations += judge.left_over(rest) + [text for text in (growth.flaw, filled) if text]
    return report.Run(
        command=f"./run bench chaos --minutes {length_s / 60:g} --seed {seed}",
        length_s=length_s, load=LOAD, seed=seed, began_s=began_s, strikes=strikes,
        asks=crowd.asks, records=records, violations=violations, growth=growth,
        filled=f"Then {busy} of {ENGINES * SLOTS} slots were in use at once: no credit is lost.",
        where=f"{os.cpu_count()} cores, Python {platform.python_version()}",
    )  # fmt: skip


async def _strike(fleet: Fleet, crowd: Crowd, strike: Strike) -> None:
    if strike.fault.place == "callers":
        await crowd.trouble(strike.fault.how, strike.fault.lasts_s)
    else:
        await fleet.strike(strike)


async def _quiet(fleet: Fleet) -> dict[str, int]:
    """What is left when all callers have gone, after a while in which it should go."""

    async def nothing_left() -> bool:
        return not any((await fleet.rest()).values())

    with contextlib.suppress(TimeoutError):
        await until(nothing_left, "nothing left", QUIET_S)
    return await fleet.rest()


async def _fill(fleet: Fleet, crowd: Crowd) -> tuple[str, int]:
    """Ask for all that there is at once: what is wrong with that, and how many ran at once."""
    busiest = [0] * ENGINES

    async def look() -> None:
        while True:
            for n in range(ENGINES):
                busiest[n] = max(busiest[n], (await fleet.counts(n))["running"])
            await asyncio.sleep(0.1)

    async with TaskRunner() as runner:
        runner.forever("look", look())
        asks = await crowd.fill(2 * ENGINES * SLOTS)
    lost = sum(ask.end is not End.WHOLE for ask in asks)
    wrong = f"in the end {lost} of {len(asks)} requests at once were not answered" if lost else ""
    if not wrong and min(busiest) < SLOTS - 2:  # they are looked at ten times a second
        wrong = f"in the end engines ran {busiest} requests at most, of {SLOTS} each"
    return wrong, sum(busiest)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status."""
    parser = argparse.ArgumentParser(prog="./run bench chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=RESULT, help="the page to write")
    args = parser.parse_args(argv)
    if args.minutes < LEAST_MINUTES:
        parser.error(f"--minutes: at least {LEAST_MINUTES:g}")
    total_s = 60 * args.minutes + FIRST_S + NEVER_S
    print(f"chaos: about {total_s / 60:.0f} min, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
        run = asyncio.run(chaos(pathlib.Path(root), 60 * args.minutes, args.seed))
    text = report.page(run)
    args.out.write_text(text)
    print(text)
    return 1 if run.violations else 0


if __name__ == "__main__":
    sys.exit(main())

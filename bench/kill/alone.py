"""Ten minutes without any control plane or etcd, at constant load: what users get meanwhile.

Half of the time users stay at their edges, then all of them move to one of four: with the credits
that each edge had at the end most engines would idle. Users have a second before they ask again, so
answers/s falls as soon as answers come later or wait for room.
"""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
from dataclasses import dataclass

from bench.cluster.fleet import KEY, MODEL, NODES, Cluster
from bench.kill.load import Load, errors
from bench.kill.pushes import Pushes
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner

EDGES = 4
USERS = 36  # 3 x 16 slots: three quarters of what the engines can run
TOKENS = 100
SPEED = 0.4  # of the demo's engine: slow answers, so that two cores are enough
WARM_UP_S = 20.0
BEFORE_S = 120.0
SETTLE_S = 60.0
AFTER_S = 60.0
SILENT = ("cp", "etcd")
MARKERS = (
    "<!-- alone: written by `./run bench kill --alone 600 --write docs/failure.md` -->",
    "<!-- end of alone -->",
)
HEAD = (
    "| when | for | requests | errors that users saw | answers/s | of before |\n"
    "|---|--:|--:|---|--:|--:|"
)


@dataclass(frozen=True, slots=True)
class Phase:
    """What users saw in one stretch."""

    title: str
    length_s: float
    requests: int
    errors: str
    rate: float


async def measure(cluster: Cluster, down_s: float) -> tuple[list[Phase], float]:
    """The phases, and how long after the end of it all the last edge took a push."""
    load = Load(cluster.endpoints, KEY, MODEL, TOKENS)
    pushes = Pushes(cluster.edge_admins)
    victims = [part for name, part in cluster.parts.items() if name.startswith(SILENT)]
    phases: list[Phase] = []

    async def phase(title: str, length_s: float) -> None:
        began_s = clock.now_s()
        await asyncio.sleep(length_s)
        phases.append(_phase(title, load, began_s, clock.now_s()))
        print(_line(phases[-1], phases[0]), flush=True)

    async with TaskRunner() as runner:
        runner.forever("pushes", pushes.watch())
        users = runner.once("users", load.run(USERS))
        await asyncio.sleep(WARM_UP_S)
        await phase("before", BEFORE_S)
        for victim in victims:
            victim.kill()
        await phase("no control plane, no etcd: users at four edges", down_s / 2)
        load.move(0)
        await phase("all users move to one edge: the first minute", SETTLE_S)
        await phase("from then on", down_s / 2 - SETTLE_S)
        up_s = clock.now_s()
        for victim in victims:
            victim.start()
        await phase("all are back: the first minute", AFTER_S)
        load.stop()
        await users
    return phases, pushes.first_after_s(up_s) - up_s


def run(down_s: float) -> str:
    """Set up, measure, tear down; the table."""
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
        cluster = Cluster(pathlib.Path(root), EDGES, engine=("--speed", str(SPEED)))
        try:
            cluster.start()
            phases, back_s = asyncio.run(measure(cluster, down_s))
        finally:
            cluster.close()
    lines = "\n".join(_line(one, phases[0]) for one in phases)
    note = (
        f"{USERS} users with answers of {TOKENS} tokens at {len(NODES)} engines and {EDGES} edges;"
        f" the first push at every edge came {back_s:.1f} s after all had been started again."
    )
    return f"{HEAD}\n{lines}\n\n{note}"


def _phase(title: str, load: Load, from_s: float, to_s: float) -> Phase:
    asks = load.between(from_s, to_s)
    seen = ", ".join(f"{count} {error}" for error, count in sorted(errors(asks).items()))
    rate = sum(not ask.error for ask in asks) / (to_s - from_s)
    return Phase(title, to_s - from_s, len(asks), seen or "none", rate)


def _line(phase: Phase, before: Phase) -> str:
    return (
        f"| {phase.title} | {phase.length_s:.0f} s | {phase.requests} | {phase.errors} |"
        f" {phase.rate:.2f} | {phase.rate / before.rate:.2f} |"
    )

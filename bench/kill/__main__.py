"""Who dies, and what clients see: a fleet of three nodes under load, one part after another.

`./run bench kill` prints the matrix; `--write docs/failure.md` puts it between that file's markers.
`--alone 600` measures another thing instead: so many seconds without control planes and etcd.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from bench.cluster.fleet import KEY, MODEL, Cluster
from bench.kill import alone, report
from bench.kill.cases import CASES, Case
from bench.kill.load import Load
from bench.kill.pushes import Pushes
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner

USERS = 24
WARM_UP_S = 4.0
BEFORE_S = 8.0
ALONE_LEAST_S = 150.0  # half of it has the minute in which edges adapt
AFTER_S = 15.0  # long enough for an engine's way back


async def measure(cluster: Cluster, case: Case) -> report.Row:
    """Load, trouble, recovery; what users saw."""
    load = Load(cluster.endpoints, KEY, MODEL)
    pushes = Pushes(cluster.edge_admins)
    victims = [cluster.parts[name] for name in cluster.resolve(case.parts)]
    async with TaskRunner() as runner:
        runner.forever("pushes", pushes.watch())
        users = runner.once("users", load.run(USERS))
        await asyncio.sleep(WARM_UP_S)
        began_s = clock.now_s()
        await asyncio.sleep(BEFORE_S)
        down_s = clock.now_s()
        for victim in victims:
            victim.strike(case.how)
        await asyncio.sleep(case.down_s)
        up_s = clock.now_s()
        for victim in victims:
            victim.recover(case.how)
        await asyncio.sleep(AFTER_S)
        end_s = clock.now_s()
        load.stop()
        await users
    stretch = report.Stretch(began_s, down_s, up_s, end_s)
    return report.row(case, load, stretch, pushes.longest_gap_s(down_s, end_s))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status."""
    parser = argparse.ArgumentParser(prog="./run bench kill", description=__doc__)
    parser.add_argument("--only", action="append", help="rows whose title has this text")
    parser.add_argument("--write", type=pathlib.Path, help="a page with the markers")
    parser.add_argument(
        "--alone", type=float, metavar="SECONDS", help="at least 150; bench/kill/alone"
    )
    args = parser.parse_args(argv)
    if args.alone is not None:
        if args.alone < ALONE_LEAST_S:
            parser.error(f"--alone: at least {ALONE_LEAST_S:.0f} s, {args.alone:.0f} are too few")
        _publish(alone.run(args.alone), args.write, alone.MARKERS)
        return 0
    cases = [c for c in CASES if not args.only or any(text in c.title for text in args.only)]
    total_s = sum(WARM_UP_S + BEFORE_S + case.down_s + AFTER_S + 5 for case in cases)
    print(f"kill: {len(cases)} cases, about {total_s / 60:.0f} min", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
        cluster = Cluster(pathlib.Path(root))
        try:
            cluster.start()
            for case in cases:
                cluster.settle()
                rows.append(asyncio.run(measure(cluster, case)))
                print(report.line(rows[-1]), flush=True)
        finally:
            cluster.close()
    _publish(report.render(rows), args.write, report.MATRIX)
    return 0


def _publish(table: str, page: pathlib.Path | None, markers: tuple[str, str]) -> None:
    if page:
        report.write(page, table, markers)
    else:
        print(table)


if __name__ == "__main__":
    sys.exit(main())

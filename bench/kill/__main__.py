"""Who dies, and what clients see: a fleet of three nodes under load, one part after another.

`./run bench kill` prints the matrix; `--write docs/failure.md` puts it between that file's markers.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from bench.cluster.fleet import KEY, MODEL, Cluster
from bench.kill import report
from bench.kill.cases import CASES, Case
from bench.kill.load import Load
from bench.kill.pushes import Pushes
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner

USERS = 24
WARM_UP_S = 4.0
BEFORE_S = 8.0
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
    args = parser.parse_args(argv)
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
    table = report.render(rows)
    if args.write:
        report.write(args.write, table)
    else:
        print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

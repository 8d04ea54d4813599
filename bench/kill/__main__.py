"""Who dies, and what clients see: a fleet of three nodes under load, one part after another.

`./run bench kill` prints the matrix; `--write docs/failure.md` puts it between that file's markers.
`--alone 600` measures another thing instead: so many seconds without control planes and etcd.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from bench.cluster.fleet import HOSTS, KEY, MODEL, Cluster
from bench.cluster.net import Net
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
    victims = cluster.resolve(case.parts)
    async with TaskRunner() as runner:
        runner.forever("pushes", pushes.watch())
        users = runner.once("users", load.run(USERS))
        await asyncio.sleep(WARM_UP_S)
        began_s = clock.now_s()
        await asyncio.sleep(BEFORE_S)
        down_s = clock.now_s()
        for name in victims:
            strike(cluster, name, case)
        await asyncio.sleep(case.down_s)
        up_s = clock.now_s()
        cluster.heal()
        for name in victims:
            cluster.parts[name].recover(case.how)
        await asyncio.sleep(AFTER_S)
        end_s = clock.now_s()
        load.stop()
        await users
    stretch = report.Stretch(began_s, down_s, up_s, end_s)
    return report.row(case, load, stretch, pushes.longest_gap_s(down_s, end_s))


def strike(cluster: Cluster, name: str, case: Case) -> None:
    """Let it happen to one part."""
    if case.how == "cut off":
        cluster.cut(name, case.hosts)
    else:
        cluster.parts[name].strike(case.how)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status."""
    parser = argparse.ArgumentParser(prog="./run bench kill", description=__doc__)
    parser.add_argument(
        "--only", action="append", help="rows whose title has this text; --write keeps the others"
    )
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
    if refusal := Net.refusal():
        print(f"NOTHING WILL BE CUT OFF HERE: {refusal}", file=sys.stderr)
        cases = [case for case in cases if case.how != "cut off"]
    total_s = sum(WARM_UP_S + BEFORE_S + case.down_s + AFTER_S + 5 for case in cases)
    print(f"kill: {len(cases)} cases, about {total_s / 60:.0f} min", flush=True)
    net = None if refusal else Net(HOSTS)
    try:
        with net.inside() if net else contextlib.nullcontext():
            lines = measure_all(cases, net)
    finally:
        if net:
            net.close()
    if args.write and args.only:
        lines = report.merged(args.write, lines)
    _publish(report.render(lines), args.write, report.MATRIX)
    return 0


def measure_all(cases: Sequence[Case], net: Net | None) -> dict[str, str]:
    """The rows by title, from one fleet."""
    lines = {}
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
        cluster = Cluster(pathlib.Path(root), net=net)
        try:
            cluster.start()
            for case in cases:
                cluster.settle()
                row = asyncio.run(measure(cluster, case))
                lines[row.title] = report.line(row)
                print(lines[row.title], flush=True)
        finally:
            cluster.close()
    return lines


def _publish(table: str, page: pathlib.Path | None, markers: tuple[str, str]) -> None:
    if page:
        report.write(page, table, markers)
    else:
        print(table)


if __name__ == "__main__":
    sys.exit(main())

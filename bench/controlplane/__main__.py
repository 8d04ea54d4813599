"""`./run bench controlplane`: what one control plane on one core carries, and its pure core's cost.

It needs two cores for itself: one for the control plane, one for all its clients. The table goes to
bench/results/controlplane.md.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shlex
import sys

import psutil
import uvloop

from bench.controlplane import pure, report, step

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "controlplane.md"
STEPS = ((100, 10), (300, 30), (1_000, 100))
SIZES = ((100, 1), (100, 10), (100, 100), (1_000, 1), (1_000, 10), (1_000, 100))
LARGE = ((3_000, 1), (3_000, 10), (3_000, 100), (10_000, 1), (10_000, 10), (10_000, 100))


def main() -> int:
    """Exit status."""
    args = _parser().parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("bench: two cores are needed, one for the control plane and one for its clients")
        return 69
    os.sched_setaffinity(0, cores[:1])
    rows, costs = [], []
    for agents, edges in (STEPS[:2] if args.quick else STEPS) if args.steps is None else args.steps:
        row = uvloop.run(step.measure(agents, edges, args.seconds, args.seed, cores[1]))
        rows.append(row)
        print(report.brief(row), flush=True)
    sizes = args.sizes
    if sizes is None:
        sizes = SIZES[:2] if args.quick else (*SIZES, *LARGE)
    for replicas, edges in sizes:
        costs.append(pure.measure(replicas, edges, args.virtual_seconds, args.seed))
        print(report.brief_cost(costs[-1]), flush=True)
    command = shlex.join(["./run", "bench", "controlplane", *sys.argv[1:]])
    machine = f"{len(cores)} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    args.out.write_text(report.markdown(rows, costs, command, machine, quick=args.quick))
    print(f"bench: written to {args.out}")
    return 0


def _size(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    return int(first), int(second)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench controlplane", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes only: one minute")
    add("--steps", nargs="*", type=_size, metavar="AGENTS/EDGES", help="sizes with real processes")
    add("--seconds", type=float, default=20.0, help="how long each is measured")
    add("--sizes", nargs="*", type=_size, metavar="REPLICAS/EDGES", help="sizes of the pure core")
    add("--virtual-seconds", type=float, default=3.0, help="how long each of those runs")
    add("--seed", type=int, default=1, help="of what the peers say")
    add("--out", type=pathlib.Path, default=RESULTS, help="the file to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())

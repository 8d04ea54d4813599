"""`./run bench edge`: what a request and a chunk cost in a proxy on one core, beside others.

It needs two cores: one for the proxy, one for the callers and the engine (two with three or more).
The table goes to bench/results/edge.md.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shlex
import sys

import psutil
import uvloop

from bench.edge import interpreter, measure, report
from bench.edge.front import TRIMTAB, Cores, engine, front
from bench.edge.measure import LOADS, Row
from bench.goodput.cell import NotReadyError
from bench.goodput.install import MissingError
from bench.goodput.peers import PEERS, Peer

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "edge.md"
NAMES = ("direct", "trimtab", "vllm-router", "smg", "envoy", "haproxy", "nginx", "litellm")
QUICK = ("direct", "trimtab", "vllm-router")


def main() -> int:
    """Exit status."""
    args = _parser().parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("bench: two cores are needed, one for the proxy and one for the rest")
        return 69
    places = Cores(front=cores[-1], callers=cores[0], engine=cores[len(cores) > 2])
    os.sched_setaffinity(0, {places.callers})
    peers = {peer.name: peer for peer in PEERS}
    rows, missing = [], []
    for name in args.peers or (QUICK if args.quick else NAMES):
        try:
            rows.append(uvloop.run(_measure(peers[name], places, args)))
        except (MissingError, NotReadyError, TimeoutError) as error:
            missing.append(f"{name}: {str(error) or 'no answers in time'}")
            print(f"bench: {missing[-1]}", flush=True)
    command = shlex.join(["./run", "bench", "edge", *sys.argv[1:]])
    machine = f"{len(cores)} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    args.out.write_text(report.markdown(rows, missing, command, machine, quick=args.quick))
    print(f"bench: written to {args.out}")
    return 0


async def _measure(peer: Peer, places: Cores, args: argparse.Namespace) -> Row:
    """All of one proxy, the open streams first, as long as its memory is fresh."""
    program, version, python = peer.install(), "", sys.executable
    if peer.name == TRIMTAB:
        python = interpreter.own(args.python) if args.python else python
        version = f", on {interpreter.about(python)}"
    row = Row(peer.title, program.version + version, is_direct=not program.command)
    seconds = 1.0 if args.quick else args.seconds
    with engine(places.engine) as ports:
        async with front(peer, program, ports, places, python) as running:
            if not args.loads:
                streams = 200 if args.quick else args.streams
                row.stream_bytes = await measure.stream_bytes(running, streams)
            for load in LOADS:
                if not args.loads or load.name in args.loads:
                    cell = await measure.measure(running, load, seconds)
                    row.cells[load.name] = cell
                    print(report.brief(peer.name, cell), flush=True)
    return row


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench edge", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="few peers, short: for trying things out")
    add("--peers", nargs="*", choices=NAMES, help="only these")
    add("--loads", nargs="*", choices=[load.name for load in LOADS], help="only these")
    add("--seconds", type=float, default=8.0, help="how long each load is measured")
    add("--python", help="run our edge under this one, in an environment of its own")
    add("--streams", type=int, default=1_000, help="open ones to measure memory with")
    add("--out", type=pathlib.Path, default=RESULTS, help="the file to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())

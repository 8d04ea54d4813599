"""`./run bench goodput`: useful tokens under overload and faults, ours beside the peers.

Everything runs one after another on this machine, over loopback, and needs it for itself: see the
column and the mark for noise. Results go to bench/results/, and the peers' programs to .bench/.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import psutil
import uvloop

from bench.goodput import cell, install, report
from bench.goodput.peers import PEERS, QUICK, Peer, Program
from bench.goodput.scenario import QUICK as QUICK_SCENARIOS
from bench.goodput.scenario import SCENARIOS, EngineKind, Scenario, arrivals

RESULTS = install.ROOT / "bench" / "results"
_OVERHEAD_S = 20.0  # of a cell: starting, settling, draining
_CALIBRATION_S = 10.0


def main() -> int:
    """Exit status: 0 also when a peer could not be had or a peer won."""
    args = _parser().parse_args()
    scenarios = _chosen_scenarios(args)
    wanted = args.peers or (QUICK if args.quick else [peer.name for peer in PEERS])
    peers = [peer for peer in PEERS if peer.name in wanted]
    kinds = {_unlimited(scenario.kind) for scenario in scenarios}
    each_s = sum(scenario.duration_s + _OVERHEAD_S for scenario in scenarios)
    total_s = each_s * len(peers) + _CALIBRATION_S * len(kinds)
    print(f"bench: {len(scenarios)} scenarios x {len(peers)} peers: about {total_s / 60:.0f} min")
    command = shlex.join(["./run", "bench", "goodput", *sys.argv[1:]])
    results = report.Results(command, _machine(), quick=args.quick)
    programs = _install(peers, results)
    try:
        uvloop.run(_measure(scenarios, peers, programs, results, args))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"bench: stopped; what was complete is in {args.out}")
        return 130
    return 0


def _unlimited(kind: EngineKind) -> EngineKind:
    """What capacity is measured with."""
    return replace(kind, queue_limit=None, busy_status=503)


async def _measure(
    scenarios: Sequence[Scenario],
    peers: Sequence[Peer],
    programs: dict[str, Program],
    results: report.Results,
    args: argparse.Namespace,
) -> None:
    if (task := asyncio.current_task()) is not None:  # ends proxies and engines in order
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    capacities: dict[EngineKind, float] = {}
    for scenario in scenarios:
        kind = _unlimited(scenario.kind)
        if kind not in capacities:
            capacities[kind] = await cell.calibrate(kind, args.seed)
            print(f"bench: capacity {capacities[kind]:.0f} tokens/s with {kind}", flush=True)
        requests = arrivals(scenario, capacities[kind], args.seed)
        for peer in peers:
            if peer.name not in programs:
                continue
            try:
                found = await cell.run(
                    peer, programs[peer.name], scenario, requests, capacities[kind]
                )
            except cell.NotReadyError as error:
                print(f"bench: NOT READY: {error}", flush=True)
                results.mute.setdefault(scenario.name, {})[peer.name] = str(error)
                continue
            results.add(peer.name, found)
            print(f"{scenario.name:17}{report.brief(found)}  {peer.name}", flush=True)
        await asyncio.to_thread(_write, results, args.out)


def _write(results: report.Results, out: pathlib.Path) -> None:
    """Table and plot so far."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "goodput.md").write_text(report.markdown(results))
    series = install.CACHE / "series.json"
    series.write_text(json.dumps(report.series(results, "trimtab")))
    try:
        python = install.venv("plot", ("matplotlib==3.11.2",)) / "python"
    except install.MissingError as error:
        print(f"bench: no plot: {error}", flush=True)
        return
    script = install.ROOT / "bench" / "goodput" / "plot.py"
    command = [str(python), "-P", str(script), str(series), str(out)]
    subprocess.run(command, check=False)


def _install(peers: Sequence[Peer], results: report.Results) -> dict[str, Program]:
    programs: dict[str, Program] = {}
    for peer in peers:
        results.titles[peer.name] = peer.title
        try:
            programs[peer.name] = peer.install()
            results.versions[peer.name] = programs[peer.name].version
        except install.MissingError as error:
            print(f"bench: NOT COMPARED: {peer.title} could not be had: {error}", flush=True)
            results.absent[peer.name] = str(error)
    return programs


def _chosen_scenarios(args: argparse.Namespace) -> list[Scenario]:
    default = dict(QUICK_SCENARIOS) if args.quick else {s.name: 1.0 for s in SCENARIOS}
    wanted = args.scenarios or default
    chosen = [scenario for scenario in SCENARIOS if scenario.name in wanted]
    if args.quick:
        return [scenario.shortened(default.get(scenario.name, 0.5)) for scenario in chosen]
    return chosen


def _machine() -> str:
    gib = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {gib:.0f} GiB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench goodput", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="two short scenarios, four peers: ten minutes")
    names = [scenario.name for scenario in SCENARIOS]
    add("--scenarios", nargs="+", metavar="NAME", choices=names, help=f"some of: {' '.join(names)}")
    known = [peer.name for peer in PEERS]
    add("--peers", nargs="+", metavar="NAME", choices=known, help=f"some of: {' '.join(known)}")
    add("--seed", type=int, default=1, help="of the arrivals")
    add("--out", type=pathlib.Path, default=RESULTS, help="where the table and the plot go")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`python -m sim whatif FILE`: what recorded arrivals would have met in another fleet, as JSON.

Rules: the fleet is first replayed as it is, beside what was measured; the run with the change is
made at the same time in a process of its own, and thrown away when the model turns out to be OFF.
`ctl simulate` starts this and shows it to people.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import pathlib
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack

import msgspec

from sim.whatif.change import Asked, Change, change
from sim.whatif.fit import fit
from sim.whatif.fleet import Setting
from sim.whatif.nearness import judge
from sim.whatif.replay import Replay, measured
from trimtab import recording
from trimtab.recording import End, Recording
from trimtab.runtime import clock
from trimtab.whatif import Costs, Figures, Found, Nearness

FAILED_TOLD = 0.01  # of the submissions


def main(argv: Sequence[str]) -> int:
    """Run what was asked for; raises OSError and ValueError."""
    args = _parser().parse_args(argv)
    gc.disable()  # what a run makes lives to its end, so looking for garbage finds none
    content = sys.stdin.buffer.read() if args.file == "-" else pathlib.Path(args.file).read_bytes()
    asked = Asked(args.replicas, args.settings, args.max_num_seqs, args.load)
    found = simulate(content, asked, args.seed)
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


def simulate(content: bytes, asked: Asked, seed: int) -> Found:
    """All of it; raises ValueError."""
    began_s = clock.now_s()
    recorded = recording.parse(content)
    head = recorded.head
    wanted = change(asked, head)
    with ExitStack() as stack:
        changed: Future[Figures] | None = None
        if wanted.words:
            # not forked: a fork of a process with threads (gRPC has some) may hang for ever
            spawning = multiprocessing.get_context("spawn")
            beside = stack.enter_context(ProcessPoolExecutor(1, spawning, gc.disable))
            changed = beside.submit(run_beside, content, wanted, seed)
        costs = fit(recorded)
        as_it_is = Setting(head.replicas, head.policy, head.edges, costs)
        model = Replay(recorded, as_it_is, 1.0, seed).run()
        seen = measured(recorded)
        nearness, misses = judge(seen, model)
        return Found(
            pool=head.pool,
            began_ms=head.began_ms,
            span_s=head.span_s,
            replicas=len(head.replicas),
            edges=head.edges,
            nearness=nearness,
            remarks=(*misses, *_remarks(recorded, costs, asked)),
            change=wanted.words,
            measured=seen,
            model=model,
            changed=changed.result() if changed and nearness is not Nearness.OFF else None,
            costs=costs,
            took_s=round(clock.now_s() - began_s, 1),
        )


def run_beside(content: bytes, wanted: Change, seed: int) -> Figures:
    """The run with the change, in another process."""
    recorded = recording.parse(content)
    setting = Setting(wanted.replicas, wanted.policy, recorded.head.edges, fit(recorded))
    return Replay(recorded, setting, wanted.load, seed).run()


def _remarks(recorded: Recording, costs: Costs, asked: Asked) -> list[str]:
    head, arrivals = recorded.head, recorded.arrivals
    found = []
    if head.silent:
        found.append(f"without what these edges had, which were silent: {', '.join(head.silent)}")
    if head.missing_s:
        found.append(f"edges do not remember the first {head.missing_s / 60:.0f} min of that time")
    failed = sum(arrival.end is End.FAILED for arrival in arrivals)
    if failed > FAILED_TOLD * len(arrivals):
        found.append(f"{failed} submissions failed; in the model nothing fails")
    if not costs.varied:
        found.append("the load hardly varied: how a fuller engine slows down is a guess")
    if asked.max_num_seqs:
        found.append("engines fuller than they were seen are extrapolated along a line")
    if any(not replica.kv_cache_tokens for replica in head.replicas):
        found.append("the engines do not say how much KV cache they have: taken as ample")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sim whatif",
        description="What recorded arrivals would meet; see ctl simulate.",
    )
    parser.add_argument("file", help="a recording (ctl simulate --save); - is stdin")
    parser.add_argument("--replicas", default="", help="how many: 5, +1, -1")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--max-num-seqs", default="", help="slots of every replica")
    parser.add_argument("--load", default="", help="times the requests, like x1.5")
    parser.add_argument("--seed", type=int, default=1)
    return parser

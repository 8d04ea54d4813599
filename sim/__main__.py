"""`python -m sim --scenario FILE --seed N`: one run of a simulated fleet, and how it went."""

from __future__ import annotations

import argparse
import pathlib
import sys

import msgspec

from sim.world.scenario import load
from sim.world.world import POLICIES, World


def main(argv: list[str] | None = None) -> int:
    """Run one scenario."""
    args = _parser().parse_args(argv)
    try:
        scenario = load(args.scenario)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 64
    result = World(scenario, args.policy, args.seed).run()
    lines = result.trace.lines if args.trace else []
    figures = msgspec.json.format(msgspec.json.encode(result.metrics)).decode()
    checks = [
        f"{name}: {'; '.join(found[:3]) or 'holds'}" for name, found in result.violations.items()
    ]
    ending = f"trace {result.trace.digest()}, {result.events} events"
    sys.stdout.write("\n".join([*lines, figures, *checks, ending, ""]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim", description=__doc__)
    parser.add_argument("--scenario", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", choices=POLICIES, default=POLICIES[0])
    parser.add_argument("--trace", action="store_true", help="print what was decided")
    return parser


if __name__ == "__main__":
    sys.exit(main())

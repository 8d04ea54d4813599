"""`trimtab-agent drain|resume REPLICA`: ask the agent of this node, and wait.

Exit status: 0 done, 1 not done in time or refused, 64 wrong arguments, 69 no agent answers. A stop
goes on in any case: systemd takes a failed ExecStop for a warning.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

import msgspec

from agent.local import Answer, Ask
from trimtab.runtime import spans

SOCKET = "/run/trimtab-agent/agent.sock"
DEADLINE_S = 840.0
EXIT_FAILED, EXIT_UNREACHABLE = 1, 69


def main(argv: Sequence[str]) -> int:
    """Ask; exit status."""
    parser = argparse.ArgumentParser(
        prog="trimtab-agent", description="Asks the agent of this node about one of its engines."
    )
    parser.add_argument("word", choices=("drain", "resume"), help="let it run empty; serve again")
    parser.add_argument("replica", help="its name, or its port as :8000")
    parser.add_argument(
        "--deadline", type=_seconds, default=DEADLINE_S, metavar="14m", help="default 14m"
    )
    parser.add_argument("--socket", default=SOCKET, help=f"default {SOCKET}")
    args = parser.parse_args(argv)
    ask = Ask(args.replica, drain=args.word == "drain")
    try:
        return asyncio.run(_ask(args.socket, ask, args.deadline))
    except OSError as error:
        _say(f"no agent answers at {args.socket}: {error.strerror or error}")
        return EXIT_UNREACHABLE


async def _ask(path: str, ask: Ask, deadline_s: float) -> int:
    reader, writer = await asyncio.open_unix_connection(path)
    told: int | None = None
    try:
        writer.write(msgspec.json.encode(ask) + b"\n")
        async with asyncio.timeout(deadline_s):
            while line := await reader.readline():
                answer = msgspec.json.decode(line, type=Answer)
                if answer.done or answer.error:
                    _say(answer.error or ("empty" if ask.drain else "serves again"))
                    return EXIT_FAILED if answer.error else 0
                if answer.work != told:
                    told = answer.work
                    _say("it does not say what it has" if told is None else f"has {told} requests")
    except TimeoutError:
        _say(f"not empty after {deadline_s:.0f} s")
        return EXIT_FAILED
    finally:
        writer.close()
    _say("the agent ended meanwhile")
    return EXIT_UNREACHABLE


def _seconds(text: str) -> float:
    length_s = spans.seconds(text, "smh", digits=9)
    if length_s is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration like 90s, 14m or 1h")
    return float(length_s)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command's words to a person

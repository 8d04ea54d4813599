"""`ctl simulate`: what the last hour's callers would have met in another fleet.

The simulator is no part of ctl and never imported here: it runs as a child, `python -m sim whatif`,
which gets the recording on its stdin and answers in JSON (docs/decisions/0018).
"""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from ctl.exits import CtlError, Exit
from ctl.options import Format, Server, allow, target
from ctl.screen import Screen
from trimtab.runtime import spans

LAST_MAX_S = 2 * 3600  # edges keep no more


Model = Annotated[
    str,
    typer.Argument(help="Whose arrivals; may be left out where there is one.", metavar="MODEL"),
]
Last = Annotated[str, typer.Option("--last", help="Of how long: 10m, 1h; at most 2h.")]
Replicas = Annotated[str, typer.Option("--replicas", help="How many: 5, +1, -1.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="queue_wait_s, queue_limit, queue.budget_s (the wait while a queue stands), hedge.",
    ),
]
Seqs = Annotated[str, typer.Option("--max-num-seqs", help="Of every engine.")]
Load = Annotated[str, typer.Option("--load", help="Times the requests, like x1.5.")]
Seed = Annotated[int, typer.Option("--seed", help="Of chance.")]
Save = Annotated[str, typer.Option("--save", help="Write the arrivals to a file, no more.")]
From = Annotated[str, typer.Option("--from", help="Arrivals of such a file.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="table, json or yaml.")]


def simulate(
    context: typer.Context,
    model: Model = "",
    last: Last = "60m",
    replicas: Replicas = "",
    settings: Set = None,
    max_num_seqs: Seqs = "",
    load: Load = "",
    seed: Seed = 1,
    save: Save = "",
    source: From = "",
    output: Output = Format.TABLE,
    server: Server = "",
) -> None:
    """Replay recorded arrivals in a model of the fleet, as it is and changed; nothing real changes.

    Exit 1: the model misses what was measured, so that it says nothing about a change.
    """
    allow(output, Format.TABLE, Format.JSON, Format.YAML)
    if source and (save or model):
        raise CtlError(Exit.USAGE, "--from FILE takes neither --save nor a model: both are in it")
    from ctl import simulated, state_file  # noqa: PLC0415  only when it runs

    screen = Screen()
    content = state_file.load(source) if source else _gather(context, server, model, _span_s(last))
    number = content.count(b"\n") - 1
    if save:
        state_file.save(save, content)
        screen.talk(f"saved {number} arrivals to {save}")
        return
    words = [("--replicas", replicas), ("--max-num-seqs", max_num_seqs), ("--load", load)]
    words += [("--set", setting) for setting in settings or []]
    flags = [f"{name}={value}" for name, value in words if value]
    screen.talk(f"replaying {number} arrivals ...")
    found = simulated.read(_run(content, [*flags, f"--seed={seed}"]))
    is_data = output is not Format.TABLE
    screen.data(
        simulated.document(found, output) if is_data else simulated.told(found, screen.table)
    )
    raise typer.Exit(Exit.OK if simulated.is_usable(found) else Exit.FAILED)


def _gather(context: typer.Context, server: str, model: str, last_s: float) -> bytes:
    from ctl import client, recordings  # noqa: PLC0415  grpc is slow to import
    from trimtab.recording import render  # noqa: PLC0415

    made: list[bytes] = []

    async def work(plane: client.Client) -> Exit:
        made.append(render(await recordings.gather(plane, model, last_s)))
        return Exit.OK

    client.run(target(context, server), work)
    return made[0]


def _run(content: bytes, flags: list[str]) -> bytes:
    """What the simulator says."""
    command = [sys.executable, "-P", "-m", "sim", "whatif", "-", *flags]
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise CtlError(Exit.USAGE, f"cannot simulate: {said[-1].removeprefix('error: ')}")
    return done.stdout


def _span_s(last: str) -> float:
    length_s = spans.seconds(last, "smh")
    if not length_s or length_s > LAST_MAX_S:
        raise CtlError(Exit.USAGE, f'--last "{last}": give a time up to 2h, like 10m or 1h')
    return length_s

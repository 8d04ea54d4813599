"""Three nodes on this machine, with everything closed, until Ctrl-C: `./run cluster`.

What dies by itself is started again after a second, as systemd would: kill -9 any pid it prints.
"""

from __future__ import annotations

import argparse
import pathlib
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence

from bench.cluster.fleet import KEY, MODEL, Cluster, NotReadyError

RESTART_S = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status."""
    parser = argparse.ArgumentParser(prog="./run cluster", description=__doc__)
    parser.add_argument("--dir", type=pathlib.Path, help="keep files here; default a temporary one")
    args = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        _ = signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as made:
        cluster = Cluster((args.dir or pathlib.Path(made)).absolute())
        try:
            cluster.start()
            print(_banner(cluster), flush=True)
            while not stop.wait(RESTART_S):
                _revive(cluster)
        except NotReadyError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            cluster.close()
    return 0


def _revive(cluster: Cluster) -> None:
    for part in cluster.parts.values():
        if not part.running:
            print(f"{part.name} died: starting it again ({part.log})", flush=True)
            part.start()


def _banner(cluster: Cluster) -> str:
    pids = "  ".join(f"{part.name} {part.pid}" for part in cluster.parts.values())
    ctl = shlex.join(("./run", "ctl", *cluster.ctl_flags))
    return "\n".join(
        (
            "ready: three nodes, two edges",
            *(f"  endpoint  {url}" for url in cluster.endpoints),
            f"  key       {KEY}   model {MODEL} (SIMULATED: the answers are made-up words)",
            f"  ctl       {ctl} status",
            f"  files     {cluster.root}",
            f"  pids      {pids}",
            "Ctrl-C ends everything in order",
        )
    )


if __name__ == "__main__":
    sys.exit(main())

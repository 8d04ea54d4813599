"""Runs a program that can't outlive its starter: `python leash.py STARTER_PID PROGRAM ARG...`.

The kernel kills the program when its starter ends in any way, kill -9 included (PR_SET_PDEATHSIG,
prctl(2)); the setting survives exec, so the program needs to know nothing of it. Run by path and
without site packages: it costs 13 ms. Elsewhere than on Linux it only runs the program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the program; exit 1 when the starter is gone already."""
    starter, *program = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(starter):  # it died before the setting was made
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()

"""The only place that reads a clock.

`now_s` never steps and orders events within one process; `wall_s` is for people and for the store.
"""

from __future__ import annotations

import time

now_s = time.monotonic  # noqa: TID251 - itself: every request asks a dozen times
"""Seconds on a clock that never steps; comparable within this process only."""


def wall_s() -> float:
    """Seconds since 1970, which may step."""
    return time.time()  # noqa: TID251


def cpu_s() -> float:
    """Seconds of CPU that this process has used."""
    return time.process_time()

"""Probes that people asked for: who waits for which answer.

Rules: their numbers are far from those of the breakers' probes, which they never move; at most
PROBES_MAX at once.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from trimtab.model import ProbeResult

PROBES_MAX = 16
FIRST = 1 << 48


class BusyError(Exception):
    """Too many wait already."""


class Probes:
    """Those under way."""

    def __init__(self) -> None:
        self._numbers = itertools.count(FIRST)
        self._waiting: dict[int, asyncio.Future[ProbeResult]] = {}

    @contextmanager
    def asked(self) -> Iterator[tuple[int, asyncio.Future[ProbeResult]]]:
        """A number to ask with and its answer to wait for; raises BusyError."""
        if len(self._waiting) >= PROBES_MAX:
            raise BusyError(f"{PROBES_MAX} probes are under way already")
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            yield number, answer
        finally:
            del self._waiting[number]

    def take(self, result: ProbeResult) -> None:
        """An answer came; others than these are the breakers'."""
        answer = self._waiting.get(result.probe_id)
        if answer is not None and not answer.done():
            answer.set_result(result)

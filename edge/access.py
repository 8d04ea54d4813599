"""Writes the access log: to standard output, as under systemd, or to a file.

Rules: a request costs its place in a list here; lines are made and written by a thread, some times
a second. A file is opened for each batch, so whoever moves it away (logrotate) need tell nobody,
and several workers can share it: each batch is one append. At most WAITING_MAX requests wait;
beyond that, and where nothing can be written, lines are dropped, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass

import msgspec

from edge.core import access
from edge.core.access import Which
from edge.core.decisions import Record
from edge.metrics import EdgeMetrics
from trimtab.runtime.log import Trouble
from trimtab.runtime.service import ConfigError

PERIOD_S = 0.2
WAITING_MAX = 16_384
STDOUT = 1
CLOSE_S = 2.0  # for the last lines, where nobody reads them
log = logging.getLogger("edge.access")
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """What operators decide about it."""

    which: Which = Which.NONE
    path: str = ""
    """Standard output, if empty."""
    notes_clients: bool = False


class AccessLog:
    """Lines on their way."""

    def __init__(self, edge: str, metrics: EdgeMetrics) -> None:
        self._edge = edge
        self._metrics = metrics
        self._settings = AccessSettings()
        self._waiting: list[Record] = []
        self._trouble = Trouble(
            *(log, "the access log can't be written: lines are dropped"),
            "the access log is written again",
        )

    def use(self, settings: AccessSettings) -> None:
        """From now on so; raises ConfigError where the file can't be written."""
        if settings.path and settings.which is not Which.NONE:
            try:
                os.close(_opened(settings.path))
            except OSError as error:
                text = f"edge.access_log.file: cannot write {settings.path}: {error.strerror}"
                raise ConfigError(text) from None
        self._settings = settings

    def add(self, record: Record) -> None:
        """A request has ended."""
        if not access.wanted(record, self._settings.which):
            return
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(record)
        else:
            self._metrics.access_lines_dropped.inc()

    async def run(self) -> None:
        """Write what comes, for ever."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.flush()

    async def close(self) -> None:
        """Write the last ones, if somebody takes them."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush()
        except TimeoutError:
            return

    async def flush(self) -> None:
        """Write what waits now."""
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        trouble = await asyncio.to_thread(_write, self._settings.path, batch, self._edge)
        if trouble:
            self._metrics.access_lines_dropped.inc(len(batch))
            self._trouble.on(error=trouble, file=self._settings.path or "standard output")
        else:
            self._trouble.off()


def _write(path: str, batch: list[Record], edge: str) -> str:
    """What went wrong, if anything did."""
    lines = _ENCODER.encode_lines([access.line(record, edge) for record in batch])
    try:
        descriptor = _opened(path) if path else STDOUT
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            if path:
                os.close(descriptor)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

"""Writes to the store in the background, so that a slow or broken one never stops pushing.

Rules: the newest value of each key wins and there is one place for each, so the backlog is bounded
by the keys; a failure is logged once until it is over, and retried with back-off.
"""

from __future__ import annotations

import asyncio
import logging
import random

from controlplane.store.protocol import TXN_LIMIT_OPS, Delete, Op, Put, Store, StoreError
from trimtab.runtime.backoff import Backoff

log = logging.getLogger("controlplane.saver")


class Saver:
    """Owns what is not on disk yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: dict[str, bytes | None] = {}
        self._waiting = asyncio.Event()
        self._failing = False
        self.failures = 0

    def save(self, key: str, value: bytes | None) -> None:
        """Write this soon; None removes the key."""
        self._pending[key] = value
        self._waiting.set()

    async def run(self) -> None:
        """Write for ever."""
        backoff = Backoff(random.SystemRandom())
        while True:
            await self._waiting.wait()
            try:
                await self.flush()
                backoff.reset()
            except StoreError:
                await asyncio.sleep(backoff.next_s())

    async def flush(self) -> None:
        """Write everything that waits; raises StoreError, after logging it."""
        while self._pending:
            batch = dict(list(self._pending.items())[:TXN_LIMIT_OPS])
            try:
                await self._store.txn([], [_op(key, value) for key, value in batch.items()])
            except StoreError as error:
                self._note_failure(error)
                raise
            for key, value in batch.items():
                # else it changed while we wrote, or the other of two flushes has written it
                if key in self._pending and self._pending[key] is value:
                    del self._pending[key]
        self._waiting.clear()
        if self._failing:
            self._failing = False
            log.info("the store takes writes again")

    def _note_failure(self, error: StoreError) -> None:
        self.failures += 1
        if not self._failing:
            self._failing = True
            fields = {"error": str(error), "waiting": len(self._pending)}
            log.error("the store fails; routing goes on, writes wait", extra={"fields": fields})


def _op(key: str, value: bytes | None) -> Op:
    return Delete(key) if value is None else Put(key, value)

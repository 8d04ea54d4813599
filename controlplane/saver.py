"""Writes to the store in the background, so that a slow or broken one never stops pushing.

Rules: the newest value of each key wins and there is one place for each, so the backlog is bounded
by the keys; a failure is logged once until it is over, and retried with back-off. Whoever leads no
longer writes nothing more: that ends `run`.
"""

from __future__ import annotations

import asyncio
import logging
import random

from controlplane.contents import op
from controlplane.core.journal import Journal
from controlplane.core.records import ROOT
from controlplane.leader import DeposedError, Tenure
from controlplane.store.protocol import TXN_LIMIT_OPS, Put, Store, StoreError
from trimtab.runtime import clock
from trimtab.runtime.backoff import Backoff

JOURNAL_PERIOD_S = 1.0  # a write a second at most, whatever happens
PROBE_KEY = ROOT + "probe"
PROBE_TTL_S = 5.0
WRITE_DEADLINE_S = 3.0  # somebody waits: rather a no than nothing
log = logging.getLogger("controlplane.saver")


class Saver:
    """Owns what is not on disk yet."""

    def __init__(self, store: Store, tenure: Tenure) -> None:
        self._store = store
        self._tenure = tenure
        self._pending: dict[str, bytes | None] = {}
        self._waiting = asyncio.Event()
        self._failing = False
        self.lock = asyncio.Lock()
        """Held by whoever writes; what was saved before a restore must not be written after it."""
        self.failures = 0

    def save(self, key: str, value: bytes | None) -> None:
        """Write this soon; None removes the key."""
        self._pending[key] = value
        self._waiting.set()

    def take(self, journal: Journal) -> None:
        """Write soon what happened since the last call."""
        for key, value in journal.unsaved().items():
            self.save(key, value)

    async def follow(self, journal: Journal) -> None:
        """Write what happens, for ever."""
        while True:
            await asyncio.sleep(JOURNAL_PERIOD_S)
            self.take(journal)

    async def write(self, key: str, value: bytes, before: bytes | None) -> int:
        """Write this now; its revision. Raises StoreError, and then `before` comes back."""
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S), self.lock:
                revision = (await self._tenure.write(self._store, [Put(key, value)])).revision
                self._pending.pop(key, None)  # what was to come back after a write that failed
                return revision
        except BaseException as error:
            # it may have come through, and what was refused must not come true with the next leader
            self.save(key, before)
            if isinstance(error, TimeoutError):
                text = f"the store has not answered in {WRITE_DEADLINE_S:.0f} s: is its disk slow?"
                raise StoreError(text) from None
            raise

    async def probe(self) -> tuple[float, float]:
        """How long one read and one write take now, seconds. Raises StoreError."""
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                began_s = clock.now_s()
                await self._store.get(PROBE_KEY)
                read_s = clock.now_s()
                lease = await self._store.grant(PROBE_TTL_S)  # so that it is in no snapshot
                lent_s = clock.now_s()
                await self._tenure.write(self._store, [Put(PROBE_KEY, b"", lease)])
                wrote_s = clock.now_s()
                await self._store.revoke(lease)
        except TimeoutError:
            raise StoreError(f"the store has not answered in {WRITE_DEADLINE_S:.0f} s") from None
        return read_s - began_s, wrote_s - lent_s

    def forget(self) -> None:
        """What waits is of no use any more."""
        self._pending.clear()

    async def run(self) -> None:
        """Write for ever; raises DeposedError."""
        backoff = Backoff(random.SystemRandom())
        while True:
            await self._waiting.wait()
            try:
                await self.flush()
                backoff.reset()
            except DeposedError:
                raise
            except StoreError:
                await asyncio.sleep(backoff.next_s())

    async def flush(self) -> None:
        """Write everything that waits; raises StoreError, after logging it."""
        async with self.lock:
            while self._pending:
                await self._flush_batch()
        self._waiting.clear()
        if self._failing:
            self._failing = False
            log.info("the store takes writes again")

    async def _flush_batch(self) -> None:
        batch = dict(list(self._pending.items())[:TXN_LIMIT_OPS])
        try:
            ops = [op(key, value) for key, value in batch.items()]
            await self._tenure.write(self._store, ops)
        except DeposedError:
            raise
        except StoreError as error:
            self._note_failure(error)
            raise
        for key, value in batch.items():
            if self._pending[key] is value:  # else it changed while we wrote
                del self._pending[key]

    def _note_failure(self, error: StoreError) -> None:
        self.failures += 1
        if not self._failing:
            self._failing = True
            fields = {"error": str(error), "waiting": len(self._pending)}
            log.error("the store fails; routing goes on, writes wait", extra={"fields": fields})

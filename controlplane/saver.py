"""Writes to the store in the background, so that a slow or broken one never stops pushing.

Rules: the newest value of each key wins and there is one place for each, so the backlog is bounded
by the keys; a failure is logged once until it is over, and retried with back-off. Whoever leads no
longer writes nothing more: that ends `run`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Sequence

from controlplane import audit
from controlplane.contents import Changes, batches, op
from controlplane.core.audit import Deed
from controlplane.core.journal import Journal
from controlplane.core.records import ROOT
from controlplane.leader import DeposedError, Tenure
from controlplane.store.protocol import (
    Compare,
    Op,
    Put,
    Store,
    StoreError,
    TxnResult,
)
from trimtab.runtime import clock
from trimtab.runtime.backoff import Backoff

JOURNAL_PERIOD_S = 1.0  # a write a second at most, whatever happens
PROBE_KEY = ROOT + "probe"
PROBE_TTL_S = 5.0
WRITE_DEADLINE_S = 3.0  # somebody waits: rather a no than nothing
log = logging.getLogger("controlplane.saver")


class ChangedError(Exception):
    """Somebody else was quicker: what the write was compared with does not hold."""


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

    async def write(
        self, changes: Changes, before: Changes, deed: Deed, compares: Sequence[Compare] = ()
    ) -> int:
        """Write this now, and whose deed it is; its revision.

        Raises ChangedError when the compares don't hold, and StoreError: then `before` comes back.
        """
        ops = [op(key, value) for key, value in changes.items()]
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S), self.lock:
                done = await audit.commit(self._store, deed, ops, compares, self._fenced)
                if not done.succeeded:
                    await self._tenure.write(self._store, ())  # do we lead still?
        except BaseException as error:
            # it may have come through, and what was refused must not come true with the next leader
            for key, value in before.items():
                self.save(key, value)
            if isinstance(error, TimeoutError):
                text = f"the store has not answered in {WRITE_DEADLINE_S:.0f} s: is its disk slow?"
                raise StoreError(text) from None
            raise
        if not done.succeeded:
            raise ChangedError
        for key in changes:  # what was to come back after a write that failed
            self._pending.pop(key, None)
        return done.revision

    def _fenced(self, compares: Sequence[Compare], ops: Sequence[Op]) -> Awaitable[TxnResult]:
        return self._tenure.write(self._store, ops, compares)

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
        batch = dict(next(batches(self._pending.items())))
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

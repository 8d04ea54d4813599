"""The serial numbers that are shut out, as the store has them now.

Rules: known before anybody is served; followed from there without a gap; while the store is away
what was out stays out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from controlplane.enrolment import REVOKED
from controlplane.store.protocol import CompactedError, Store, StoreError
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.log import Trouble

log = logging.getLogger("controlplane.revocations")


class Revocations:
    """`load`, then `run`; `serials` is what is out."""

    def __init__(self, store: Store, changed: Callable[[], None]) -> None:
        self._store = store
        self._changed = changed
        self.serials: frozenset[str] = frozenset()

    async def load(self) -> int:
        """Read all; the revision from which to follow. Raises StoreError."""
        listing = await self._store.range(REVOKED)
        self._set({entry.key.removeprefix(REVOKED) for entry in listing.entries})
        return listing.revision + 1

    async def run(self) -> None:
        """Follow, for ever."""
        backoff = Backoff(random.SystemRandom(), cap_s=1.0)
        trouble = Trouble(
            log, "cannot follow revocations; trying again", "revocations are followed again"
        )
        while True:
            try:
                revision = await self.load()
                backoff.reset()
                trouble.off()
                await self._follow(revision)
            except CompactedError:
                continue
            except StoreError as error:
                trouble.on(error=str(error))
                await asyncio.sleep(backoff.next_s())

    async def _follow(self, revision: int) -> None:
        async for change in self._store.watch(REVOKED, revision):
            serials = set(self.serials)
            for event in change.events:
                serial = event.key.removeprefix(REVOKED)
                (serials.discard if event.value is None else serials.add)(serial)
            self._set(serials)

    def _set(self, serials: set[str]) -> None:
        self.serials = frozenset(serials)
        self._changed()

"""How another configuration comes into effect: checked, stored, then followed; and its history.

Rules: one at a time; whoever compared with a revision that is in effect no longer is refused; it is
in the store before anybody follows it, and what could not be stored is not followed. HISTORY_MAX
revisions are kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from controlplane import state
from controlplane.core import live
from controlplane.core.audit import Deed
from controlplane.core.events import Configured, Event, Noted
from controlplane.core.live import Live
from controlplane.core.records import ConfigRecord, pack
from controlplane.core.replica import Replica
from controlplane.saver import Saver
from controlplane.store.protocol import VALUE_LIMIT_BYTES, Store
from trimtab.runtime import clock
from trimtab.steered import Order
from trimtab.views import LiveConfig

HISTORY_MAX = 32
log = logging.getLogger("controlplane.live")


def check(file: Live, replicas: Iterable[Replica]) -> None:
    """Raise BadConfigError unless this may be in effect."""
    if faults := live.faults(live.configuration(file), file.node, replicas):
        raise BadConfigError("\n".join(faults))


class BadConfigError(ValueError):
    """This can't be in effect; a line a fault."""


class StaleConfigError(Exception):
    """Another one is in effect than the one this was compared with."""


class UnknownRevisionError(Exception):
    """It is not kept."""


class LiveConfiguration:
    """The configuration in effect; `tell` hears of every new one."""

    def __init__(
        self, file: Live, store: Store, saver: Saver, tell: Callable[[Event], None]
    ) -> None:
        self._file = file
        self._store = store
        self._saver = saver
        self._tell = tell
        self._turn = asyncio.Lock()
        self.record = ConfigRecord()
        self.now = file
        """What is in effect."""

    def load(self, record: ConfigRecord) -> None:
        """Begin with what was applied last."""
        self._put(record)
        self._compare()

    async def reload(self, file: Live, replicas: Iterable[Replica]) -> None:
        """Another file takes the place of ours; raises BadConfigError, and then it does not."""
        async with self._turn:
            check(file, replicas)
            is_news = live.configuration(file) != live.configuration(self._file)
            self._file = file
            if self.record.config is None and is_news:
                self._put(self.record, Noted("file taken anew", {}))
            self._compare()

    def _compare(self) -> None:
        record = self.record
        if record.config is not None and record.config != live.configuration(self._file):
            log.warning(
                "the file's pools, engines, keys and limits differ from what was applied and do not"
                " count; see: ctl config diff",
                extra={"fields": {"revision": record.revision, "actor": record.actor}},
            )

    def of(self, record: ConfigRecord) -> LiveConfig:
        """What a record stands for."""
        return live.configuration(self._file) if record.config is None else record.config

    async def kept(self) -> list[ConfigRecord]:
        """The history, the newest last. Raises StoreError."""
        return await state.configs(self._store)

    async def find(self, revision: int) -> ConfigRecord:
        """One of them; 0 is the file. Raises UnknownRevisionError, StoreError."""
        if not revision:
            return ConfigRecord()
        kept = await self.kept()
        for record in kept:
            if record.revision == revision:
                return record
        known = f"{kept[0].revision} to {kept[-1].revision}" if kept else "none"
        raise UnknownRevisionError(f"revision {revision} is not kept; there are: {known}, and 0")

    async def apply(self, wanted: ConfigRecord, expected: int, replicas: Iterable[Replica]) -> int:
        """Put this into effect; the revision that is. Its own number and time do not matter.

        Raises BadConfigError, StaleConfigError, StoreError.
        """
        async with self._turn:
            before = self.record
            if expected != before.revision:
                raise StaleConfigError(
                    f"revision {before.revision} is in effect by now, applied by"
                    f" {before.actor or 'nobody'}; this was compared with {expected}"
                )
            if wanted.config in (before.config, self.of(before)):
                return before.revision
            faults = live.faults(self.of(wanted), self._file.node, replicas)
            if faults:
                raise BadConfigError("\n".join(faults))
            revision = before.revision + 1
            record = ConfigRecord(
                revision, wanted.config, clock.wall_s(), wanted.actor, wanted.reason
            )
            value = pack(record)
            if len(value) > VALUE_LIMIT_BYTES:
                raise BadConfigError(f"{len(value)} bytes: at most {VALUE_LIMIT_BYTES}")
            deed = Deed(
                *(Order(record.actor, record.reason), "config", "fleet"),
                *(f"revision {before.revision}", f"revision {revision}"),
            )
            await self._saver.write({record.key: value}, {record.key: None}, deed)
            self._saver.save(ConfigRecord(max(0, revision - HISTORY_MAX)).key, None)
            words = {"revision": revision, "actor": record.actor, "reason": record.reason}
            self._put(record, Noted("configuration applied", words))
            return revision

    def _put(self, record: ConfigRecord, *noted: Noted) -> None:
        self.record = record
        known = record.config
        self.now = self._file if known is None else live.effective(known, self._file.node)
        self._tell(Configured(self.now.placement, noted))

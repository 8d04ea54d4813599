"""What is read from the store when a term begins: its number, replicas, intents, configurations.

Rules: every term is higher than all before it, so that its pushes are newer; a record
that can't be read is named in the log and passed over.
"""

from __future__ import annotations

import logging
from typing import TypeVar

from controlplane.core.events import Loaded
from controlplane.core.overrides import OVERRIDES
from controlplane.core.records import (
    CONFIGS,
    EVENTS,
    INTENTS,
    REPLICAS,
    TERM_KEY,
    ConfigRecord,
    ReplicaRecord,
    Wish,
    pack_term,
    unpack,
    unpack_term,
)
from controlplane.leader import Tenure
from controlplane.store.protocol import Absent, Put, RevisionIs, Store, StoreError
from trimtab.steered import Override
from trimtab.views import FleetEvent

T = TypeVar("T")
TERM_TRIES = 10
log = logging.getLogger("controlplane.state")


async def next_term(store: Store, tenure: Tenure) -> int:
    """One more than the last; it is ours alone. Raises StoreError, DeposedError."""
    for _ in range(TERM_TRIES):
        entry = await store.get(TERM_KEY)
        term = unpack_term(entry.value) + 1 if entry else 1
        unchanged = RevisionIs(TERM_KEY, entry.mod_revision) if entry else Absent(TERM_KEY)
        result = await tenure.write(store, [Put(TERM_KEY, pack_term(term))], [unchanged])
        if result.succeeded:
            return term
    raise StoreError(f"others take every term that we try ({TERM_TRIES} tries)")


async def load(store: Store) -> Loaded:
    """Everything known from before. Raises StoreError."""
    return Loaded(
        replicas=await _records(store, REPLICAS, ReplicaRecord),
        wishes=await _records(store, INTENTS, Wish),
        overrides={
            OVERRIDES + name: override
            for name, override in (await _records(store, OVERRIDES, Override)).items()
        },
        config=max(await configs(store), key=lambda it: it.revision, default=ConfigRecord()),
        journal=await _records(store, EVENTS, tuple[FleetEvent, ...]),
    )


async def configs(store: Store) -> list[ConfigRecord]:
    """Every configuration that is kept, the newest last. Raises StoreError."""
    return list((await _records(store, CONFIGS, ConfigRecord)).values())


async def _records(store: Store, prefix: str, kind: type[T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for entry in (await store.range(prefix)).entries:
        record = unpack(entry.value, kind)
        if record is None:
            log.warning("unreadable record passed over", extra={"fields": {"key": entry.key}})
        else:
            found[entry.key.removeprefix(prefix)] = record
    return found

"""The format of the stored records: its version, and the steps from each version to the next.

Rules: the leader takes the steps at its start; the key that names the version is written last, and
every transaction compares it. So a step may find its own work half done (a start that broke off)
and must be repeatable. A version names the oldest one whose software can still work with it
(`compatible_from`): software older than that refuses to start. A step is needed only where old
records would be misread; new fields with defaults need none.
This is not the format of the embedded store's file, which has a version of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from controlplane import contents
from controlplane.contents import Changes, Records
from controlplane.core.records import SCHEMA_KEY, unpack
from controlplane.leader import Tenure
from controlplane.store.protocol import Absent, RevisionIs, Store
from trimtab.runtime.service import ConfigError


class SchemaError(ConfigError):
    """The records are of a format that this software can't work with."""


class Schema(msgspec.Struct, frozen=True):
    """The format of all records of a store."""

    version: int = 0
    """0: written before formats had versions."""
    compatible_from: int = 0
    """Software whose newest schema is this or newer can work with it."""


@dataclass(frozen=True, slots=True)
class Step:
    """The way to a version from the one before."""

    to: Schema
    changes: Callable[[Records], Changes]


STEPS = (Step(Schema(1, 1), lambda _: {}),)
SCHEMA = STEPS[-1].to.version


async def migrate(store: Store, tenure: Tenure, steps: Sequence[Step] = STEPS) -> None:
    """Bring the store's records to the newest schema; raises SchemaError and StoreError."""
    entry = await store.get(SCHEMA_KEY)
    unchanged = RevisionIs(SCHEMA_KEY, entry.mod_revision) if entry else Absent(SCHEMA_KEY)
    have, _ = await contents.read(store)
    changes = contents.compare(have, upgraded(have, steps))
    last = {key: changes.pop(key) for key in (SCHEMA_KEY,) if key in changes}
    await contents.write(store, tenure, changes | last, [unchanged])


def upgraded(records: Records, steps: Sequence[Step] = STEPS) -> Records:
    """The same in the newest schema; those of a newer one stay as they are, or SchemaError."""
    held, known = schema_of(records), steps[-1].to.version
    if held.compatible_from > known:
        raise SchemaError(
            f"the stored state has schema {held.version}, which needs software that knows schema"
            f" {held.compatible_from} or newer; this one knows {known}: upgrade this control plane"
            " (docs/upgrade.md)"
        )
    result = dict(records)
    for step in steps:
        if step.to.version > held.version:
            changed = step.changes(result)
            result |= {key: value for key, value in changed.items() if value is not None}
            result = {key: v for key, v in result.items() if changed.get(key, v) is not None}
            result[SCHEMA_KEY] = msgspec.json.encode(step.to)
    return result


def schema_of(records: Records) -> Schema:
    """The schema of these records; raises SchemaError when it can't be read."""
    if SCHEMA_KEY not in records:
        return Schema()
    held = unpack(records[SCHEMA_KEY], Schema)
    if held is None:
        raise SchemaError(f"the stored state's {SCHEMA_KEY} can't be read: restore a backup")
    return held

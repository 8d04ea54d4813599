"""The format of the records and the way from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from controlplane.contents import Changes, Records
from controlplane.leader import Tenure
from controlplane.migrations import SCHEMA, Schema, SchemaError, Step, migrate, schema_of
from controlplane.store.protocol import Compare, Op, Put, StoreError, TxnResult
from tests.fakes.store import FakeStore

KEY = "trimtab/schema"


def rename(records: Records) -> Changes:
    """old/* becomes new/*."""
    old = {key: value for key, value in records.items() if key.startswith("trimtab/old/")}
    moved: dict[str, bytes | None] = {key.replace("old", "new"): v for key, v in old.items()}
    return moved | dict.fromkeys(old)


STEPS = (Step(Schema(1, 1), lambda _: {}), Step(Schema(2, 1), rename), Step(Schema(3, 3), rename))


async def stored(*ops: Op) -> FakeStore:
    store = FakeStore()
    await store.txn([], ops)
    return store


def schema(store: FakeStore) -> Schema:
    return schema_of({key: entry.value for key, entry in store.entries.items()})


async def test_a_store_without_a_schema_gets_the_present_one_once() -> None:
    store = FakeStore()
    await migrate(store, Tenure())
    assert schema(store).version == SCHEMA == 1
    await migrate(store, Tenure())
    assert len(store.txns) == 1


@pytest.mark.parametrize("held", [b'{"version":1,"compatible_from":1}', None])
async def test_steps_are_taken_and_the_schema_comes_last(held: bytes | None) -> None:
    many = [Put(f"trimtab/old/{n}", b"%d" % n) for n in range(100)]
    store = await stored(*many, *([Put(KEY, held)] if held else []))
    await migrate(store, Tenure(), STEPS)
    assert schema(store) == Schema(3, 3)
    assert {key for key in store.entries if "/old/" in key} == set()
    assert store.entries["trimtab/new/7"].value == b"7"
    assert [op.key for ops in store.txns[1:] for op in ops][-1] == KEY


class BreakingStore(FakeStore):
    """Fails after some transactions."""

    left = 1

    async def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op] = ()
    ) -> TxnResult:
        if self.left == 0:
            raise StoreError("gone")
        self.left -= 1
        return await super().txn(compares, successes, failures)


async def test_one_that_broke_off_is_repeated() -> None:
    store = BreakingStore()
    await store.txn([], [Put(f"trimtab/old/{n}", b"%d" % n) for n in range(100)])
    store.left = 1
    with pytest.raises(StoreError):
        await migrate(store, Tenure(), STEPS)
    assert KEY not in store.entries
    store.left = 9
    await migrate(store, Tenure(), STEPS)
    assert schema(store) == Schema(3, 3)
    assert len(store.entries) == 101


async def test_a_newer_schema_that_we_can_work_with_stays() -> None:
    store = await stored(Put(KEY, b'{"version":2,"compatible_from":1,"unknown":{}}'))
    await migrate(store, Tenure())
    assert schema(store) == Schema(2, 1)
    assert len(store.txns) == 1


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (b'{"version":4,"compatible_from":2}', "has schema 4, which needs software that knows"),
        (b"junk", "trimtab/schema can't be read"),
    ],
)
async def test_what_we_cannot_work_with_is_refused(held: bytes, words: str) -> None:
    store = await stored(Put(KEY, held))
    with pytest.raises(SchemaError, match=words):
        await migrate(store, Tenure())
    assert len(store.txns) == 1

"""A change and its entry are one transaction, also when many write at once."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import pytest

from controlplane import audit
from controlplane.core import audit as core_audit
from controlplane.core.audit import NEWEST_KEY, Deed, key
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.protocol import Absent, Put, StoreError
from tests.fakes.store import FakeStore
from trimtab import steered
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner
from trimtab.steered import Order, fault

DEED = Deed(Order("ada", "fan"), "intent", "r1", "ACTIVE", "SPARE")


@pytest.fixture
async def store(tmp_path: pathlib.Path) -> AsyncIterator[EmbeddedStore]:
    opened = await EmbeddedStore.open(tmp_path / "s.db", clock.now_s)
    yield opened
    await opened.close()


async def test_a_change_comes_with_its_entry(store: EmbeddedStore) -> None:
    first = await audit.commit(store, DEED, [Put("a", b"1")])
    second = await audit.commit(store, DEED, [Put("a", b"2")])
    entries, newest = await audit.read(store)
    assert [(one.number, one.actor, one.revision) for one in entries] == [
        (1, "ada", first.revision),
        (2, "ada", second.revision),
    ]
    assert newest is not None
    assert fault(entries, newest) == ""


async def test_no_change_no_entry(store: EmbeddedStore) -> None:
    await audit.commit(store, DEED, [Put("a", b"1")])
    done = await audit.commit(store, DEED, [Put("a", b"2")], [Absent("a")])
    assert not done.succeeded
    assert len((await audit.read(store))[0]) == 1


async def test_many_at_once_make_one_chain(store: EmbeddedStore) -> None:
    async with TaskRunner() as runner:
        for number in range(8):
            put = Put(f"k{number}", b"")
            _ = runner.once(f"writer {number}", audit.commit(store, DEED, [put]))
    entries, newest = await audit.read(store)
    assert newest is not None
    assert (len(entries), fault(entries, newest)) == (8, "")


async def test_the_ring_is_bounded_and_whole(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (steered, core_audit):
        monkeypatch.setattr(module, "AUDIT_MAX", 3)
    for _ in range(5):
        await audit.commit(store, DEED, [])
    entries, newest = await audit.read(store)
    assert newest is not None
    assert [one.number for one in entries] == [3, 4, 5]
    assert fault(entries, newest) == ""
    revisions = [one.revision for one in entries]
    assert revisions == sorted(set(revisions))


async def test_a_spoiled_end_blocks_nobody_and_shows(store: EmbeddedStore) -> None:
    await audit.commit(store, DEED, [])
    await store.txn([], [Put(NEWEST_KEY, b"junk"), Put(key(1), b"junk")])
    await audit.commit(store, DEED, [])
    entries, newest = await audit.read(store)
    assert newest is not None
    assert (len(entries), newest.number) == (1, 1)


async def test_a_broken_store_says_so() -> None:
    store = FakeStore()
    store.error = "disk full"
    with pytest.raises(StoreError, match="disk full"):
        await audit.commit(store, DEED, [])

"""Writes happen behind the pushes, newest value only, and survive a broken store."""

from __future__ import annotations

import logging

import pytest

from controlplane.core.audit import Deed
from controlplane.leader import DeposedError, Tenure
from controlplane.saver import Saver
from controlplane.store.protocol import Absent, StoreError
from tests.fakes.store import FakeStore
from tests.fakes.wait import until
from trimtab.runtime.tasks import TaskRunner
from trimtab.steered import Order


async def test_what_is_saved_is_stored_and_removed() -> None:
    store = FakeStore()
    saver = Saver(store, Tenure())
    async with TaskRunner() as runner:
        runner.forever("saver", saver.run())
        saver.save("a", b"1")
        saver.save("b", b"2")
        await until(lambda: set(store.entries) == {"a", "b"})
        saver.save("a", None)
        await until(lambda: set(store.entries) == {"b"})


async def test_only_the_newest_value_is_written() -> None:
    store = FakeStore()
    saver = Saver(store, Tenure())
    for number in range(1_000):
        saver.save("a", b"%d" % number)
    await saver.flush()
    assert store.entries["a"].value == b"999"
    assert len(store.txns) == 1


async def test_many_keys_go_in_pieces() -> None:
    store = FakeStore()
    saver = Saver(store, Tenure())
    for number in range(300):
        saver.save(f"k{number}", b"")
    await saver.flush()
    assert [len(ops) for ops in store.txns] == [128, 128, 44]
    assert len(store.entries) == 300


async def test_what_is_large_goes_in_pieces_that_every_store_takes() -> None:
    store = FakeStore()
    saver = Saver(store, Tenure())
    for number in range(5):
        saver.save(f"k{number}", bytes(400_000))
    await saver.flush()
    assert [len(ops) for ops in store.txns] == [2, 2, 1]


async def test_a_broken_store_is_told_once_and_caught_up_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    store = FakeStore()
    saver = Saver(store, Tenure())
    store.error = "disk full"
    async with TaskRunner() as runner:
        runner.forever("saver", saver.run())
        saver.save("a", b"1")
        await until(lambda: len(store.txns) >= 2)
        saver.save("a", b"2")
        store.error = ""
        await until(lambda: "a" in store.entries)
        await until(lambda: len(caplog.messages) == 2)
    assert store.entries["a"].value == b"2"
    assert caplog.messages == [
        "the store fails; routing goes on, writes wait",
        "the store takes writes again",
    ]


async def test_two_flushes_at_once_write_everything() -> None:
    store = FakeStore()
    saver = Saver(store, Tenure())
    for number in range(300):
        saver.save(f"k{number}", b"")
    async with TaskRunner() as runner:
        both = [runner.once(name, saver.flush()) for name in ("one", "two")]
    assert all(task.done() for task in both)
    assert len(store.entries) == 300


async def test_flush_says_when_it_cannot() -> None:
    store = FakeStore()
    saver = Saver(store, Tenure())
    saver.save("a", b"1")
    store.error = "disk full"
    with pytest.raises(StoreError, match="disk full"):
        await saver.flush()
    store.error = ""
    await saver.flush()
    assert store.entries["a"].value == b"1"


async def test_who_leads_no_longer_writes_nothing_and_ends() -> None:
    store = FakeStore()
    saver = Saver(store, Tenure((Absent("a"),)))
    saver.save("a", b"1")
    await saver.flush()
    saver.save("a", b"2")
    with pytest.raises(DeposedError):
        await saver.run()
    assert store.entries["a"].value == b"1"


async def test_what_failed_once_does_not_undo_what_was_written_then() -> None:
    store = FakeStore()
    saver = Saver(store, Tenure())
    store.error = "disk full"
    with pytest.raises(StoreError, match="disk full"):
        await saver.write({"a": b"1"}, {"a": None}, Deed(Order("op", "why"), "test"))
    store.error = ""
    await saver.write({"a": b"2"}, {"a": None}, Deed(Order("op", "why"), "test"))
    await saver.flush()
    assert store.entries["a"].value == b"2"


async def test_the_store_is_measured_and_nothing_stays() -> None:
    store = FakeStore()
    saver = Saver(store, Tenure())
    read_s, write_s = await saver.probe()
    assert min(read_s, write_s) >= 0.0
    assert all(entry.lease for entry in store.entries.values()), "no snapshot has it"
    store.error = "no quorum"
    with pytest.raises(StoreError, match="no quorum"):
        await saver.probe()

"""Who is out stays out: over a lost history, and while the store is away."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest

from controlplane.enrolment import REVOKED
from controlplane.revocations import Revocations
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.protocol import Change, CompactedError, Delete, Put, StoreError
from tests.fakes.store import FakeStore
from tests.fakes.wait import until
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner


class ForgetfulStore(FakeStore):
    """Its watches end with these errors, one after the other."""

    def __init__(self, *errors: StoreError) -> None:
        super().__init__()
        self.errors = list(errors)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Change]:
        """Fail, and in the end just wait."""
        if self.errors:
            raise self.errors.pop(0)
        await asyncio.Event().wait()
        yield Change(0, ())


async def test_it_follows_the_store(tmp_path: pathlib.Path) -> None:
    store = await EmbeddedStore.open(tmp_path / "s.db", clock.now_s)
    calls: list[int] = []
    revocations = Revocations(store, lambda: calls.append(1))
    await store.txn([], [Put(f"{REVOKED}aa", b"{}")])
    async with TaskRunner() as runner:
        runner.forever("revocations", revocations.run())
        await until(lambda: revocations.serials == {"aa"})
        before = len(calls)
        await store.txn([], [Put(f"{REVOKED}bb", b"{}"), Delete(f"{REVOKED}aa")])
        await until(lambda: revocations.serials == {"bb"})
        assert len(calls) == before + 1
    await store.close()


@pytest.mark.parametrize("error", [CompactedError("gone"), StoreError("away")])
async def test_a_watch_that_ends_begins_again_with_a_list(error: StoreError) -> None:
    store = ForgetfulStore(error)
    await store.txn([], [Put(f"{REVOKED}aa", b"{}")])
    revocations = Revocations(store, lambda: None)
    async with TaskRunner() as runner:
        runner.forever("revocations", revocations.run())
        await until(lambda: not store.errors and revocations.serials == {"aa"})


async def test_without_a_store_the_known_stay_out() -> None:
    store = FakeStore()
    await store.txn([], [Put(f"{REVOKED}aa", b"{}")])
    revocations = Revocations(store, lambda: None)
    await revocations.load()
    store.error = "no quorum"
    with pytest.raises(StoreError):
        await revocations.load()
    assert revocations.serials == {"aa"}

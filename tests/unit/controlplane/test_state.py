"""What is read at the start."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from controlplane import state
from controlplane.core.records import ReplicaRecord, Wish, pack
from controlplane.leader import Tenure
from controlplane.store.protocol import Compare, Op, Put, StoreError, TxnResult
from tests.fakes.peers import facts
from tests.fakes.store import FakeStore
from trimtab.model import Intent, Serving


class RacedStore(FakeStore):
    """Somebody else takes each term first."""

    async def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op] = ()
    ) -> TxnResult:
        await super().txn([], [Put("trimtab/term", b"%d" % (self.revision + 100))])
        return await super().txn(compares, successes, failures)


async def test_terms_count_up() -> None:
    store = FakeStore()
    assert [await state.next_term(store, Tenure()) for _ in range(3)] == [1, 2, 3]


async def test_a_term_that_is_nonsense_starts_over() -> None:
    store = FakeStore()
    await store.txn([], [Put("trimtab/term", b"seven")])
    assert await state.next_term(store, Tenure()) == 1


async def test_a_race_that_is_always_lost_ends() -> None:
    with pytest.raises(StoreError, match="10 tries"):
        await state.next_term(RacedStore(), Tenure())


async def test_load_passes_over_what_it_cannot_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    store = FakeStore()
    record = ReplicaRecord("n1", facts("r1"), Serving.OPEN)
    wish = Wish(Intent.CORDONED, "fan", "ada")
    await store.txn(
        [],
        [
            Put("trimtab/replicas/r1", pack(record)),
            Put("trimtab/replicas/r2", b"junk"),
            Put("trimtab/intents/r1", pack(wish)),
            Put("elsewhere", b"not ours"),
        ],
    )
    loaded = await state.load(store)
    assert (loaded.replicas, loaded.wishes) == ({"r1": record}, {"r1": wish})
    assert caplog.messages == ["unreadable record passed over"]

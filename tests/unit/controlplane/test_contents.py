"""The store's contents as a whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import contents
from controlplane.leader import Tenure
from controlplane.store.protocol import Absent, Put, StoreError
from tests.fakes.store import FakeStore

records = st.dictionaries(st.sampled_from([f"trimtab/{n}" for n in range(8)]), st.binary())


@given(records, records)
async def test_the_changes_make_one_into_the_other(
    have: dict[str, bytes], want: dict[str, bytes]
) -> None:
    store = FakeStore()
    await store.txn([], [Put(key, value) for key, value in have.items()])
    await contents.write(store, Tenure(), contents.compare(have, want))
    assert (await contents.read(store))[0] == want


async def test_what_has_a_lease_is_none_of_it() -> None:
    store = FakeStore()
    lease = await store.grant(2.0)
    leader = Put("trimtab/leader", b"me", lease)
    await store.txn([], [leader, Put("trimtab/a", b"1"), Put("b", b"2")])
    assert await contents.read(store) == ({"trimtab/a": b"1"}, 1)


async def test_a_compare_that_fails_stops_it() -> None:
    store = FakeStore()
    await store.txn([], [Put("a", b"1")])
    with pytest.raises(StoreError, match="another control plane"):
        await contents.write(store, Tenure(), {"b": b"1"}, [Absent("a")])


@pytest.mark.parametrize(
    ("sizes_bytes", "batches"),
    [
        ([], []),
        ([1] * 300, [128, 128, 44]),
        ([1024 * 1024], [1]),
        ([600_000, 600_000, 1], [1, 2]),
        ([1024 * 1024, 1, 1], [1, 2]),
    ],
)
def test_batches_fit(sizes_bytes: list[int], batches: list[int]) -> None:
    items = [(f"{number:03}", bytes(size)) for number, size in enumerate(sizes_bytes)]
    made = list(contents.batches(items))
    assert [len(batch) for batch in made] == batches
    assert [item for batch in made for item in batch] == items

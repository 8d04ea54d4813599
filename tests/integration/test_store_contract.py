"""What every store must do, run on every adapter.

An adapter joins by a harness: how to open it, open it again, compact it, let time pass, and give it
a slow disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import signal
import time
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

import pytest

from controlplane import leader
from controlplane.saver import Saver
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.etcd import EtcdStore
from controlplane.store.protocol import (
    Absent,
    Change,
    CompactedError,
    Compare,
    Delete,
    Entry,
    Event,
    LeaseLostError,
    Op,
    Put,
    RevisionIs,
    Store,
    StoreError,
    ValueIs,
)
from tests.fakes import etcd, wait
from tests.fakes.clock import FakeClock
from trimtab.runtime.tasks import TaskRunner

DEADLINE_S = 30.0
FSYNC_S = 0.1


class Harness(Protocol):
    """What the tests need beside the protocol."""

    @property
    def store(self) -> Store:
        """The store, as last opened."""
        ...

    async def reopen(self) -> None:
        """Close and open again, as after a restart."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget the history up to and with a revision."""
        ...

    async def let_pass(self, duration_s: float) -> None:
        """Let this much time pass for leases."""
        ...

    def slow_disk(self) -> contextlib.AbstractAsyncContextManager[None]:
        """What is written takes its time on the way to the disk."""
        ...


class EmbeddedHarness:
    """The SQLite adapter on a file, with a clock of our own."""

    def __init__(self, path: pathlib.Path, runner: TaskRunner) -> None:
        self._path = path
        self._runner = runner
        self._clock = FakeClock()
        self._store: EmbeddedStore

    @property
    def store(self) -> Store:
        """See Harness."""
        return self._store

    async def open(self) -> None:
        """Open the file and keep its leases."""
        self._store = await EmbeddedStore.open(self._path, self._clock)
        self._expiry = self._runner.once("lease expiry", self._store.expire_leases())

    async def close(self) -> None:
        """Stop both."""
        self._expiry.cancel()
        await self._store.close()

    async def reopen(self) -> None:
        """See Harness."""
        await self.close()
        await self.open()

    async def compact(self, revision: int) -> None:
        """See Harness."""
        await self._store.compact(revision)

    async def let_pass(self, duration_s: float) -> None:
        """See Harness."""
        self._clock.advance(duration_s)

    @contextlib.asynccontextmanager
    async def slow_disk(self) -> AsyncIterator[None]:
        """See Harness: every commit waits, in the store's own thread."""
        database = self._store._database
        assert database is not None

        def wait(statement: str) -> None:
            if statement == "COMMIT":
                time.sleep(FSYNC_S)

        database._db.set_trace_callback(wait)
        yield
        database._db.set_trace_callback(None)


class EtcdHarness:
    """The etcd adapter on a real etcd that is new; time is real."""

    def __init__(self, cluster: etcd.Cluster) -> None:
        self._cluster = cluster
        self._store: EtcdStore

    @property
    def store(self) -> Store:
        """See Harness."""
        return self._store

    async def open(self) -> None:
        """Connect as soon as it serves."""
        await self._cluster.ready()
        self._store = await EtcdStore.open(self._cluster.access(), "test/")

    async def close(self) -> None:
        """Disconnect."""
        await self._store.close()

    async def reopen(self) -> None:
        """See Harness."""
        await self.close()
        (node,) = self._cluster.nodes
        node.kill(signal.SIGTERM)
        node.start()
        await self.open()

    async def compact(self, revision: int) -> None:
        """See Harness."""
        self._cluster.nodes[0].ctl("compact", str(revision))

    async def let_pass(self, duration_s: float) -> None:
        """See Harness."""
        await asyncio.sleep(duration_s)

    @contextlib.asynccontextmanager
    async def slow_disk(self) -> AsyncIterator[None]:
        """See Harness: a process that waits for its disk, most of the time."""
        (node,) = self._cluster.nodes

        async def stutter() -> None:
            while True:
                node.freeze()
                await asyncio.sleep(2 * FSYNC_S)
                node.thaw()
                await asyncio.sleep(FSYNC_S)

        async with TaskRunner() as runner:
            runner.forever("stutter", stutter())
            yield
        node.thaw()


@contextlib.asynccontextmanager
async def embedded_harness(folder: pathlib.Path) -> AsyncIterator[Harness]:
    async with TaskRunner() as runner:
        embedded = EmbeddedHarness(folder / "store.db", runner)
        await embedded.open()
        yield embedded
        await embedded.close()


@contextlib.asynccontextmanager
async def etcd_harness(folder: pathlib.Path) -> AsyncIterator[Harness]:
    with etcd.running(folder) as cluster:
        harness = EtcdHarness(cluster)
        await harness.open()
        yield harness
        await harness.close()


@pytest.fixture(params=[embedded_harness, etcd_harness], ids=["embedded", "etcd"])
async def harness(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Harness]:
    async with request.param(tmp_path) as opened:
        yield opened


async def put(store: Store, *pairs: tuple[str, bytes], lease: int = 0) -> int:
    result = await store.txn([], [Put(key, value, lease) for key, value in pairs])
    assert result.succeeded
    return result.revision


async def take(changes: AsyncIterator[Change], count: int) -> list[Change]:
    async with asyncio.timeout(DEADLINE_S):
        return [await anext(changes) for _ in range(count)]


async def until_gone(store: Store, key: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await store.get(key):  # noqa: ASYNC110 - what ends has no event here
            await asyncio.sleep(wait.POLL_S)


async def test_get_of_what_is_not_there(harness: Harness) -> None:
    assert await harness.store.get("a") is None


async def test_a_key_is_read_back_with_the_revision_that_wrote_it(harness: Harness) -> None:
    first = await put(harness.store, ("a", b"1"))
    second = await put(harness.store, ("b", b"\x00\xff"))

    assert second > first
    assert await harness.store.get("a") == Entry("a", b"1", first)
    assert await harness.store.get("b") == Entry("b", b"\x00\xff", second)


async def test_a_key_that_was_deleted_is_gone(harness: Harness) -> None:
    await put(harness.store, ("a", b"1"))
    await harness.store.txn([], [Delete("a")])
    assert await harness.store.get("a") is None


async def test_a_transaction_that_changes_nothing_makes_no_revision(harness: Harness) -> None:
    revision = await put(harness.store, ("a", b"1"))
    assert (await harness.store.txn([], [Delete("nothing")])).revision == revision
    assert (await harness.store.txn([Absent("a")], [Put("a", b"2")])).revision == revision


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Absent("a"), False),
        (Absent("z"), True),
        (ValueIs("a", b"1"), True),
        (ValueIs("a", b"2"), False),
        (ValueIs("z", b""), False),
        (RevisionIs("z", 0), False),
    ],
    ids=str,
)
async def test_compare_chooses_the_branch(harness: Harness, compare: Compare, holds: bool) -> None:
    await put(harness.store, ("a", b"1"))

    result = await harness.store.txn([compare], [Put("took", b"yes")], [Put("took", b"no")])

    assert result.succeeded is holds
    taken = await harness.store.get("took")
    assert taken is not None
    assert taken.value == (b"yes" if holds else b"no")
    assert taken.mod_revision == result.revision


async def test_only_one_of_two_racing_swaps_wins(harness: Harness) -> None:
    revision = await put(harness.store, ("a", b"0"))

    results = await asyncio.gather(
        *(harness.store.txn([RevisionIs("a", revision)], [Put("a", b"%d" % n)]) for n in range(8))
    )

    assert [result.succeeded for result in results].count(True) == 1


async def test_a_transaction_is_one_revision_and_whole(harness: Harness) -> None:
    revision = await put(harness.store, ("a", b"1"), ("b", b"2"), ("c", b"3"))
    listing = await harness.store.range("")
    assert {entry.mod_revision for entry in listing.entries} == {revision}
    assert listing.revision == revision


@pytest.mark.parametrize(
    "ops",
    [
        [Put("", b"")],
        [Delete("k" * 1025)],
        [Put("a", b"x" * (1024 * 1024 + 1))],
        [Put("a", b"1"), Delete("a")],
        [Put(f"k{n}", b"") for n in range(129)],
    ],
    ids=["no key", "long key", "long value", "same key twice", "too many"],
)
async def test_what_no_adapter_takes_is_refused(harness: Harness, ops: list[Op]) -> None:
    with pytest.raises(ValueError, match=r"a key|a value|a transaction"):
        await harness.store.txn([], ops)
    assert (await harness.store.range("")).entries == ()


async def test_range_holds_the_prefix_only_in_order_of_bytes(harness: Harness) -> None:
    keys = ["a", "a/", "a/2", "a/10", "a/\U0001f600", "a/é", "a0", "b", "\U0010ffff/x"]
    for key in keys:
        await put(harness.store, (key, key.encode()))

    listing = await harness.store.range("a/")

    assert [entry.key for entry in listing.entries] == ["a/", "a/10", "a/2", "a/é", "a/\U0001f600"]
    assert {entry.key for entry in (await harness.store.range("")).entries} == set(keys)
    assert [entry.key for entry in (await harness.store.range("\U0010ffff")).entries] == [keys[-1]]
    assert (await harness.store.range("nothing")).entries == ()


async def test_a_large_range_comes_whole(harness: Harness) -> None:
    count = 5_000
    for start in range(0, count, 100):
        await put(harness.store, *((f"n/{n:05}", b"v" * 500) for n in range(start, start + 100)))

    listing = await harness.store.range("n/")

    assert [entry.key for entry in listing.entries] == [f"n/{n:05}" for n in range(count)]


async def test_a_list_and_a_watch_miss_and_repeat_nothing(harness: Harness) -> None:
    await put(harness.store, ("p/a", b"1"))
    listing = await harness.store.range("p/")
    second = await put(harness.store, ("p/a", b"2"), ("other", b""))
    await put(harness.store, ("other", b"9"))
    third = (await harness.store.txn([], [Delete("p/a")])).revision

    changes = harness.store.watch("p/", listing.revision + 1)

    assert await take(changes, 2) == [
        Change(second, (Event("p/a", b"2"),)),
        Change(third, (Event("p/a", None),)),
    ]


async def test_a_watch_sees_what_comes_later(harness: Harness) -> None:
    changes = harness.store.watch("", 1)
    waiting = asyncio.gather(take(changes, 3))
    revisions = [await put(harness.store, ("k", value)) for value in (b"1", b"2", b"3")]
    ((first, second, third),) = await waiting
    assert [first.revision, second.revision, third.revision] == revisions


async def test_a_watch_goes_on_over_a_restart(harness: Harness) -> None:
    first = await put(harness.store, ("k", b"1"))
    (seen,) = await take(harness.store.watch("", 1), 1)
    second = await put(harness.store, ("k", b"2"))
    await harness.reopen()
    third = await put(harness.store, ("k", b"3"))

    later = await take(harness.store.watch("", seen.revision + 1), 2)

    assert first < second < third
    assert [change.revision for change in later] == [second, third]


async def test_a_slow_watcher_gets_a_long_history_in_order(harness: Harness) -> None:
    revisions = [await put(harness.store, ("k", b"%d" % n)) for n in range(700)]
    changes = await take(harness.store.watch("k", 1), 700)
    assert [change.revision for change in changes] == revisions


async def test_compaction_is_a_typed_error_and_then_a_list_helps(harness: Harness) -> None:
    for n in range(10):
        await put(harness.store, ("k", b"%d" % n))
    listing = await harness.store.range("k")
    await harness.compact(listing.revision)

    with pytest.raises(CompactedError):
        await take(harness.store.watch("k", 2), 1)
    revision = await put(harness.store, ("k", b"new"))
    (change,) = await take(harness.store.watch("k", listing.revision + 1), 1)

    assert change == Change(revision, (Event("k", b"new"),))


async def test_compaction_outlives_a_restart(harness: Harness) -> None:
    for n in range(10):
        await put(harness.store, ("k", b"%d" % n))
    await harness.compact(8)
    await harness.reopen()
    with pytest.raises(CompactedError):
        await take(harness.store.watch("k", 2), 1)


async def test_a_lease_that_is_over_takes_its_keys(harness: Harness) -> None:
    lease = await harness.store.grant(2.0)
    revision = await put(harness.store, ("with", b"1"), ("as well", b"1"), lease=lease)
    await put(harness.store, ("without", b"1"))
    changes = harness.store.watch("", revision + 2)

    await harness.let_pass(2.0)
    (change,) = await take(changes, 1)

    assert change.events == (Event("as well", None), Event("with", None))
    assert [entry.key for entry in (await harness.store.range("")).entries] == ["without"]
    with pytest.raises(LeaseLostError):
        await harness.store.keepalive(lease)
    with pytest.raises(LeaseLostError):
        await put(harness.store, ("late", b""), lease=lease)
    assert await harness.store.get("late") is None


async def test_keepalive_keeps(harness: Harness) -> None:
    lease = await harness.store.grant(3.0)
    await put(harness.store, ("k", b"1"), lease=lease)
    for _ in range(3):
        await harness.let_pass(1.5)
        await harness.store.keepalive(lease)
    entry = await harness.store.get("k")
    assert entry is not None
    assert entry.lease == lease


async def test_a_key_put_again_without_its_lease_stays(harness: Harness) -> None:
    lease = await harness.store.grant(2.0)
    await put(harness.store, ("k", b"1"), lease=lease)
    await put(harness.store, ("k", b"2"))
    await harness.store.revoke(lease)
    entry = await harness.store.get("k")
    assert entry is not None
    assert (entry.value, entry.lease) == (b"2", 0)


async def test_revoke_is_at_once_and_once(harness: Harness) -> None:
    lease = await harness.store.grant(100.0)
    await put(harness.store, ("k", b"1"), lease=lease)
    await harness.store.revoke(lease)
    assert await harness.store.get("k") is None
    with pytest.raises(LeaseLostError):
        await harness.store.revoke(lease)


async def test_leases_outlive_a_restart_with_their_whole_time(harness: Harness) -> None:
    lease = await harness.store.grant(3.0)
    await put(harness.store, ("k", b"1"), lease=lease)
    await harness.let_pass(2.0)
    await harness.reopen()
    await harness.let_pass(2.0)
    assert await harness.store.get("k") is not None
    await harness.let_pass(1.0)
    await until_gone(harness.store, "k")


async def test_everything_outlives_a_restart(harness: Harness) -> None:
    pairs: Iterable[tuple[str, bytes]] = [("a", b"1"), ("ключ/鍵", "значение".encode())]
    revision = await put(harness.store, *pairs)
    await harness.reopen()
    listing = await harness.store.range("")
    assert listing.revision == revision
    assert [(entry.key, entry.value) for entry in listing.entries] == list(pairs)


async def test_on_a_slow_disk_a_leader_keeps_its_lease_and_writes_come_late(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "TTL_S", 10.0)  # this machine may be slow as well
    election = leader.StoreElection(harness.store, leader.Candidate("cp1", "cp1:1"))
    tenure = await election.claim()
    assert tenure is not None
    saver = Saver(harness.store, tenure)
    async with harness.slow_disk(), TaskRunner() as runner:
        runner.forever("lease", election.keep(tenure))
        runner.forever("saver", saver.run())
        for turn in range(3):
            for number in range(300):
                saver.save(f"k{number:03}", b"%d" % turn)
            renewed_s = tenure.until_s
            await wait.until(lambda: tenure.until_s > renewed_s, DEADLINE_S)  # noqa: B023
    await saver.flush()
    assert {entry.value for entry in (await harness.store.range("k")).entries} == {b"2"}


async def test_a_closed_store_says_so(harness: Harness) -> None:
    await harness.store.close()
    with pytest.raises(StoreError, match="closed"):
        await harness.store.get("a")
    await harness.reopen()

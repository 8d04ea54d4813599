"""What only etcd can meet: members that die, freeze or lose each other, tokens, TLS, neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator

import pytest

from controlplane.store.etcd import EtcdStore
from controlplane.store.etcd_client import Access, UnreachableError, UnsafeVersionError
from controlplane.store.protocol import (
    Absent,
    Change,
    CompactedError,
    Delete,
    Event,
    LeaseLostError,
    Put,
    RevisionIs,
    StoreError,
)
from tests.fakes import certificates, etcd, wait

DEADLINE_S = 45.0


@pytest.fixture
async def one(tmp_path: pathlib.Path) -> AsyncIterator[etcd.Cluster]:
    with etcd.running(tmp_path) as cluster:
        await cluster.ready()
        yield cluster


@pytest.fixture
async def three(tmp_path: pathlib.Path) -> AsyncIterator[etcd.Cluster]:
    with etcd.running(tmp_path, size=3) as cluster:
        await cluster.ready()
        yield cluster


@contextlib.asynccontextmanager
async def opened(access: Access, prefix: str = "test/") -> AsyncIterator[EtcdStore]:
    store = await EtcdStore.open(access, prefix)
    try:
        yield store
    finally:
        await store.close()


async def put(store: EtcdStore, key: str, value: bytes) -> int:
    return (await store.txn([], [Put(key, value)])).revision


async def put_at_last(store: EtcdStore, key: str, value: bytes) -> None:
    """Write until it is acknowledged; writing the same again does no harm here."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(StoreError):
                await put(store, key, value)
                return
            await asyncio.sleep(wait.POLL_S)


class Watcher:
    """Follows a watch in the background and keeps what it saw."""

    def __init__(self, store: EtcdStore, from_revision: int = 1) -> None:
        self.changes: list[Change] = []
        self._store = store
        self._from_revision = from_revision

    async def _follow(self) -> None:
        async for change in self._store.watch("", self._from_revision):
            self.changes.append(change)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[Watcher]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._follow())
            yield self
            task.cancel()

    def values(self) -> list[bytes | None]:
        return [event.value for change in self.changes for event in change.events]

    async def until(self, value: bytes) -> None:
        await wait.until(lambda: value in self.values(), DEADLINE_S)


async def test_a_watch_goes_on_over_kill_9_and_repeats_nothing(one: etcd.Cluster) -> None:
    (node,) = one.nodes
    async with opened(one.access()) as store, Watcher(store).following() as watcher:
        for number in range(5):
            await put(store, "k", b"%d" % number)
        await watcher.until(b"4")
        node.kill()
        with pytest.raises(StoreError):
            await put(store, "k", b"nobody takes this")
        node.start()
        await node.ready()
        await put_at_last(store, "k", b"after")
        await watcher.until(b"after")
    values = [value for value in watcher.values() if value != b"after"]
    assert values == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_cut_while_catching_up_loses_nothing(one: etcd.Cluster) -> None:
    """Answers of a watch that catches up carry the store's revision, far ahead of their events."""
    (node,) = one.nodes
    count = 3_000
    async with opened(one.access()) as store:
        for start in range(0, count, 25):
            writes = (put(store, "k", b"%d" % (start + number)) for number in range(25))
            await asyncio.gather(*writes)
        revisions: list[int] = []
        async with asyncio.timeout(DEADLINE_S):
            async for change in store.watch("", 1):
                revisions.append(change.revision)
                if len(revisions) in {10, 1_200}:
                    node.kill()
                    node.start()
                    await node.ready()
                if len(revisions) == count:
                    break
    assert revisions == list(range(2, count + 2))


async def test_a_revision_that_comes_in_parts_is_put_together(one: etcd.Cluster) -> None:
    async with opened(one.access()) as store:
        # etcd cuts at 2 MiB: with one key first, that is in the middle of each pair
        writes = [[Put("0", b"v" * 700_000)]]
        writes += [[Put(f"{n}{part}", b"v" * 700_000) for part in "ab"] for n in range(1, 5)]
        for ops in writes:
            await store.txn([], ops)
        changes = store.watch("", 1)
        async with asyncio.timeout(DEADLINE_S):
            seen = [(await anext(changes)).events for _ in writes]
    assert seen == [tuple(Event(op.key, op.value) for op in ops) for ops in writes]


async def test_compaction_while_cut_off_is_told(one: etcd.Cluster) -> None:
    (node,) = one.nodes
    async with opened(one.access()) as store:
        await put(store, "k", b"first")
        changes = store.watch("", 1)
        async with asyncio.timeout(DEADLINE_S):
            await anext(changes)
        node.kill()  # and nobody asks the watch to come back before its history is gone
        node.start()
        await node.ready()
        for _ in range(5):
            node.ctl("put", "test/k", "unseen")
        node.ctl("compact", "6")
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(CompactedError):
                await anext(changes)


async def test_a_deletion_at_the_compacted_revision_is_not_missed(one: etcd.Cluster) -> None:
    async with opened(one.access()) as store:
        created = await put(store, "k", b"1")
        deleted = (await store.txn([], [Delete("k")])).revision
        await put(store, "other", b"")
        one.nodes[0].ctl("compact", str(deleted))
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(CompactedError):
                await anext(store.watch("", created + 1))


async def test_no_server_is_said_at_once_with_its_name(one: etcd.Cluster) -> None:
    async with opened(one.access()) as store:
        one.nodes[0].kill()
        for _ in range(3):
            with pytest.raises(UnreachableError, match=one.urls[0]):
                await store.get("k")
        with pytest.raises(UnreachableError, match=one.urls[0]):
            await store.txn([], [Put("k", b"")])
    with pytest.raises(UnreachableError, match=one.urls[0]):
        await EtcdStore.open(one.access(), "test/")


async def test_without_a_quorum_nothing_hangs_and_all_comes_back(three: etcd.Cluster) -> None:
    async with opened(three.access()) as store, Watcher(store).following() as watcher:
        await put(store, "k", b"before")
        await watcher.until(b"before")
        dead = three.nodes[:2]
        for node in dead:
            node.kill()

        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(UnreachableError):
                await store.get("k")
            with pytest.raises(UnreachableError):
                await store.txn([], [Put("k", b"lost")])
            with pytest.raises(UnreachableError):
                await store.grant(5.0)

        for node in dead:
            node.start()
        await three.ready()
        await put_at_last(store, "k", b"after")
        await watcher.until(b"after")


async def test_a_watch_leaves_a_member_that_lost_the_others(
    three: etcd.Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(three.access()) as store, Watcher(store).following() as watcher:
        await put(store, "k", b"before")
        await watcher.until(b"before")
        for node in three.nodes[1:]:  # the watch is at the first one, which stays
            node.kill()
        await wait.until(lambda: "watch is cut off" in caplog.text, DEADLINE_S)


async def test_a_leaders_death_costs_a_watch_nothing(three: etcd.Cluster) -> None:
    async with opened(three.access()) as store, Watcher(store).following() as watcher:
        for round_number in range(2):
            await put_at_last(store, "k", b"before %d" % round_number)
            leader = await three.leader()
            leader.kill()
            for number in range(20):
                await put_at_last(store, f"n/{round_number}/{number}", b"")
            await put_at_last(store, "k", b"after %d" % round_number)
            await watcher.until(b"after %d" % round_number)
            leader.start()
            await leader.ready()
        seen = {event.key for change in watcher.changes for event in change.events}
    revisions = [change.revision for change in watcher.changes]
    assert seen == {"k", *(f"n/{r}/{n}" for r in range(2) for n in range(20))}
    assert revisions == sorted(set(revisions))


async def test_a_frozen_member_is_left_for_another(three: etcd.Cluster) -> None:
    async with opened(three.access()) as store, Watcher(store).following() as watcher:
        await put(store, "k", b"before")
        await watcher.until(b"before")
        frozen = three.nodes[0]  # calls and watch are here
        frozen.freeze()
        await put_at_last(store, "k", b"meanwhile")
        entry = await store.get("k")
        assert entry is not None
        assert entry.value == b"meanwhile"
        await watcher.until(b"meanwhile")  # its connection stays open; pings notice it
        frozen.thaw()


async def test_a_password_and_a_token_that_ends(tmp_path: pathlib.Path) -> None:
    with etcd.running(tmp_path, options=["--auth-token-ttl", "1"]) as cluster:
        await cluster.ready()
        (node,) = cluster.nodes
        for command in (
            "user add root:root",
            "user grant-role root root",
            "user add fleet:secret",
            "role add fleet",
            "role grant-permission fleet readwrite test/ test0",
            "user grant-role fleet fleet",
            "auth enable",
        ):
            node.ctl(*command.split())
        with pytest.raises(StoreError, match="invalid user ID or password") as raised:
            await EtcdStore.open(cluster.access("fleet", "wrong-word"), "test/")
        assert "wrong-word" not in str(raised.value)
        with pytest.raises(StoreError, match="user name is empty"):
            await EtcdStore.open(cluster.access(), "test/")
        with pytest.raises(StoreError, match="permission denied"):
            await EtcdStore.open(cluster.access("fleet", "secret"), "other/")
        async with opened(cluster.access("fleet", "secret")) as store:
            lease = await store.grant(30.0)
            async with Watcher(store).following() as watcher:
                for number in range(3):
                    await asyncio.sleep(1.5)  # the token's time is over
                    await put(store, "k", b"%d" % number)
                    await store.keepalive(lease)
                await watcher.until(b"2")
                node.kill()
                node.start()
                await node.ready()
                await put_at_last(store, "k", b"after")  # tokens did not outlive the process
                await watcher.until(b"after")


async def test_mutual_tls(tmp_path: pathlib.Path) -> None:
    authority, stranger = certificates.Authority("lab"), certificates.Authority("stranger")
    member = authority.issue(tmp_path / "member", "127.0.0.1")
    files = ["--cert-file", str(member.cert), "--key-file", str(member.key)]
    files += ["--client-cert-auth", "--trusted-ca-file", str(authority.write(tmp_path / "ca.crt"))]
    client = authority.issue(tmp_path / "client", "control")
    outsider = stranger.issue(tmp_path / "outsider", "control")
    with etcd.running(tmp_path / "etcd", tls=files) as cluster:
        await cluster.ready()
        bare = dataclasses.replace(cluster.access(), ca=authority.pem)
        good = dataclasses.replace(bare, cert=client.cert.read_bytes(), key=client.key.read_bytes())
        async with opened(good) as store:
            await put(store, "k", b"1")
            assert await store.get("k") is not None
        foreign = dataclasses.replace(
            bare, cert=outsider.cert.read_bytes(), key=outsider.key.read_bytes()
        )
        distrusted = dataclasses.replace(good, ca=stranger.pem)
        for access in (bare, foreign, distrusted):
            with pytest.raises(UnreachableError, match=cluster.urls[0]):
                await EtcdStore.open(access, "test/")


async def test_many_keys_come_whole_as_of_one_revision(one: etcd.Cluster) -> None:
    async with opened(one.access()) as store:
        count = 6_000
        keys = [f"n/{number:05}" for number in range(count)]
        for start in range(0, count, 120):
            await store.txn([], [Put(key, b"v" * 900) for key in keys[start : start + 120]])
        listing, _ = await asyncio.gather(store.range("n/"), put(store, "n/late", b""))
        found = [entry.key for entry in listing.entries]
        assert found in (keys, [*keys, "n/late"])


async def test_fleets_do_not_see_each_other(one: etcd.Cluster) -> None:
    keys = ["k", "ключ/鍵", "\U0010ffff", "\U0010ffff\U0010ffff/x", "é\x00\x7f", "\U0001f600"]
    async with (
        opened(one.access(), "lab/a/") as first,
        opened(one.access(), "lab/a\U0010ffff/") as second,
        opened(one.access(), "lab/a0/") as third,
    ):
        stores = {b"1": first, b"2": second, b"3": third}
        for value, store in stores.items():
            for key in keys:
                await put(store, key, value)
        one.nodes[0].ctl("put", "lab", "not ours")
        for value, store in stores.items():
            listing = await store.range("")
            found = [(entry.key, entry.value) for entry in listing.entries]
            assert found == [(key, value) for key in sorted(keys, key=str.encode)]
            ends = [entry.key for entry in (await store.range("\U0010ffff")).entries]
            assert ends == ["\U0010ffff", "\U0010ffff\U0010ffff/x"]
            changes = store.watch("\U0010ffff", 1)
            seen = [(await anext(changes)).events for _ in ends]
            assert seen == [(Event(key, value),) for key in ends]


async def test_a_strangers_key_in_our_corner_stops_nothing(one: etcd.Cluster) -> None:
    async with opened(one.access()) as store:
        one.nodes[0].ctl("put", "test/", "no name at all")
        revision = await put(store, "k", b"1")
        assert [entry.key for entry in (await store.range("")).entries] == ["", "k"]
        (change,) = [await anext(store.watch("k", revision))]
        assert change == Change(revision, (Event("k", b"1"),))


async def test_who_lost_the_lease_lost_the_key(one: etcd.Cluster) -> None:
    """An election as the control plane does it."""
    async with opened(one.access()) as first, opened(one.access()) as second:
        lease = await first.grant(1.0)
        taken = await first.txn([Absent("leader")], [Put("leader", b"1", lease)])
        assert taken.succeeded
        assert not (await second.txn([Absent("leader")], [Put("leader", b"2")])).succeeded
        async with asyncio.timeout(DEADLINE_S):
            gone = await anext(second.watch("leader", taken.revision + 1))
        assert gone.events == (Event("leader", None),)
        assert (await second.txn([Absent("leader")], [Put("leader", b"2")])).succeeded
        mine = RevisionIs("leader", taken.revision)
        assert not (await first.txn([mine], [Put("k", b"too late")])).succeeded
        with pytest.raises(LeaseLostError):
            await first.keepalive(lease)


async def test_a_version_that_loses_writes_is_refused(one: etcd.Cluster) -> None:
    strict = dataclasses.replace(one.access(), allow_unsafe_version=False)
    if not etcd.unsafe():
        await (await EtcdStore.open(strict, "test/")).close()
        return
    with pytest.raises(UnsafeVersionError, match="allow_unsafe_version: true"):
        await EtcdStore.open(strict, "test/")


async def test_who_waits_is_told_when_the_store_closes(one: etcd.Cluster) -> None:
    store = await EtcdStore.open(one.access(), "test/")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_first_error(store))
        await put(store, "k", b"1")
        await store.close()
    assert "closed" in waiting.result()


async def _first_error(store: EtcdStore) -> str:
    try:
        async for _ in store.watch("", 1):
            pass
    except StoreError as error:
        return str(error)
    return "the watch ended"

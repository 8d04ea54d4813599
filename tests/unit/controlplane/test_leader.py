"""The election: never two at once, whatever is late or lost, and no write of a deposed leader."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.leader import (
    LEADER_KEY,
    TTL_S,
    Candidate,
    DeposedError,
    StoreElection,
    Tenure,
)
from controlplane.store.protocol import Compare, Delete, Op, Put, StoreError, TxnResult
from tests.fakes.clock import FakeClock
from tests.fakes.store import FakeStore
from trimtab.runtime import clock

SAFE_S = TTL_S * 2 / 3


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(clock, "now_s", fake)
    return fake


def candidate(store: FakeStore, name: str = "cp0") -> StoreElection:
    return StoreElection(store, Candidate(name, f"{name}:7000"))


async def claimed(election: StoreElection) -> Tenure:
    tenure = await election.claim()
    assert tenure is not None
    return tenure


async def test_the_first_leads_and_others_see_where(time: FakeClock) -> None:
    store = FakeStore()
    tenure = await claimed(candidate(store))
    other = candidate(store, "cp1")
    assert await other.claim() is None
    assert (await other.look())[0] == Candidate("cp0", "cp0:7000")
    assert tenure.holds


async def test_the_right_ends_before_the_lease(time: FakeClock) -> None:
    store = FakeStore()
    tenure = await claimed(candidate(store))
    time.advance(SAFE_S)
    assert not tenure.holds
    assert await candidate(store, "cp1").claim() is None, "the lease still lives"
    time.advance(TTL_S - SAFE_S)
    assert await candidate(store, "cp1").claim() is not None


async def test_renewing_counts_from_when_it_was_sent(time: FakeClock) -> None:
    store = FakeStore()
    election = candidate(store)
    tenure = await claimed(election)
    time.advance(1.0)
    await election.renew(tenure)
    time.advance(1.0)
    assert tenure.holds
    time.advance(SAFE_S - 1.0)
    assert not tenure.holds


async def test_a_paused_leader_writes_nothing(time: FakeClock) -> None:
    store = FakeStore()
    tenure = await claimed(candidate(store))
    time.advance(TTL_S)
    await claimed(candidate(store, "cp1"))
    count = len(store.txns)
    with pytest.raises(DeposedError):
        await tenure.write(store, [Put("k", b"")])
    assert len(store.txns) == count, "it does not even ask"
    tenure.until_s = time.now_s + 1.0  # its clock is wrong: the fence remains
    with pytest.raises(DeposedError):
        await tenure.write(store, [Put("k", b"")])
    assert "k" not in store.entries
    assert not tenure.holds


async def test_a_key_removed_by_hand_is_noticed(time: FakeClock) -> None:
    store = FakeStore()
    election = candidate(store)
    tenure = await claimed(election)
    await store.txn([], [Delete(LEADER_KEY)])
    with pytest.raises(DeposedError):
        await election.renew(tenure)
    assert not tenure.holds


async def test_a_lease_that_is_gone_deposes(time: FakeClock) -> None:
    store = FakeStore()
    election = candidate(store)
    tenure = await claimed(election)
    await store.revoke(tenure.lease)
    with pytest.raises(DeposedError, match="the leader's lease is over"):
        await election.renew(tenure)


async def test_a_store_that_fails_does_not_depose_at_once(time: FakeClock) -> None:
    store = FakeStore()
    election = candidate(store)
    tenure = await claimed(election)
    store.error = "no quorum"
    with pytest.raises(StoreError, match="no quorum"):
        await election.renew(tenure)
    assert tenure.holds


async def test_who_resigns_makes_way_at_once(time: FakeClock) -> None:
    store = FakeStore()
    election = candidate(store)
    tenure = await claimed(election)
    await election.resign(tenure)
    assert not tenure.holds
    assert await candidate(store, "cp1").claim() is not None


async def test_who_resigns_to_a_broken_store_goes_on(time: FakeClock) -> None:
    store = FakeStore()
    election = candidate(store)
    tenure = await claimed(election)
    store.error = "gone"
    await election.resign(tenure)
    assert not tenure.holds


class Pause:
    """On the wire, until the test lets it go on."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class SlowStore(FakeStore):
    """Questions and answers both take as long as the test wants."""

    async def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op] = ()
    ) -> TxnResult:
        await Pause()
        result = await super().txn(compares, successes, failures)
        await Pause()
        return result

    async def grant(self, ttl_s: float) -> int:
        await Pause()
        lease = await super().grant(ttl_s)
        await Pause()
        return lease

    async def keepalive(self, lease: int) -> None:
        await Pause()
        await super().keepalive(lease)
        await Pause()


class Rival:
    """One control plane: claims, renews, writes; one thing at a time."""

    def __init__(self, store: SlowStore, name: str) -> None:
        self._store = store
        self._election = candidate(store, name)
        self.tenure: Tenure | None = None
        self._doing: Coroutine[None, None, None] | None = None

    def move(self, what: str) -> None:
        """Go one step on with what it does, or begin another; or lose a message."""
        if self._doing is None:
            self._doing = self._write() if what == "write" else self._stay()
        try:
            if what == "lose":
                self._doing.throw(StoreError("lost"))
            else:
                self._doing.send(None)
        except (StopIteration, StoreError):
            self._doing = None

    def end(self) -> None:
        """Drop what is under way."""
        if self._doing is not None:
            self._doing.close()

    async def _stay(self) -> None:
        if self.tenure is None or not self.tenure.holds:
            self.tenure = await self._election.claim()
        else:
            await self._election.renew(self.tenure)

    async def _write(self) -> None:
        if self.tenure is not None:
            await self.tenure.write(self._store, [Put("by", b"%d" % self.tenure.lease)])


MOVES = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["on", "on", "on", "write", "lose"]),
        st.integers(1, 6),  # an election is five steps
        st.sampled_from([0.0, 0.0, 0.1, 1.2, TTL_S]),
    ),
    min_size=4,
    max_size=30,
)


@settings(max_examples=300)
@given(MOVES)
def test_there_are_never_two_leaders(moves: list[tuple[int, str, int, float]]) -> None:
    time, store = FakeClock(), SlowStore()
    rivals = [Rival(store, f"cp{number}") for number in range(2)]
    newest = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now_s", time)
        for number, what, steps, wait_s in moves:
            time.advance(wait_s)
            for _ in range(steps):
                rivals[number].move(what)
            assert sum(r.tenure is not None and r.tenure.holds for r in rivals) <= 1
            if "by" in store.entries:  # leases count up: who writes never led before the last
                by = int(store.entries["by"].value)
                assert by >= newest
                newest = by
        for rival in rivals:
            rival.end()

"""Who leads: one key in the store, held by a lease; whoever put it there leads.

Rules: the right to lead ends SAFE_RATIO of the lease's time after the last renewal that was *sent*
and then answered, so before anybody else can have it, however late we notice; it is looked at when
it is used, because a process that was paused wakes in the middle of anything. Every write is
compared with the key as we put it (the fence): a leader who was deposed without noticing changes
nothing. Losing the store is losing the right, not an error of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import msgspec

from controlplane.core.records import ROOT, unpack
from controlplane.store.protocol import (
    Absent,
    Compare,
    LeaseLostError,
    Op,
    Put,
    RevisionIs,
    Store,
    StoreError,
    TxnResult,
)
from trimtab.runtime import clock
from trimtab.runtime.log import Trouble

LEADER_KEY = ROOT + "leader"
TTL_S = 2.0  # the shortest that etcd gives
SAFE_RATIO = 2 / 3
RENEW_S = 0.5
RETRY_S = 0.1
LOOK_S = 2.0  # a watch on a store's node that is cut off says nothing: look again so often
RESIGN_S = 1.0
log = logging.getLogger("controlplane.leader")


class DeposedError(StoreError):
    """We do not lead any more."""


class Candidate(msgspec.Struct, frozen=True):
    """What the key holds: who leads, and where peers find it."""

    name: str
    target: str


@dataclass(slots=True)
class Tenure:
    """The right to lead, for as long as `holds`; without a lease it never ends."""

    fence: tuple[Compare, ...] = ()
    lease: int = 0
    until_s: float = math.inf

    @property
    def holds(self) -> bool:
        """Whether it is certain now that nobody else leads."""
        return clock.now_s() < self.until_s

    def check(self) -> None:
        """Raise DeposedError unless it holds."""
        if not self.holds:
            raise DeposedError("this control plane leads no longer")

    async def write(
        self, store: Store, ops: Sequence[Op], compares: Sequence[Compare] = ()
    ) -> TxnResult:
        """A transaction that only the leader can make; raises StoreError, DeposedError."""
        self.check()
        result = await store.txn([*self.fence, *compares], ops)
        if not result.succeeded and not compares:
            self.until_s = -math.inf
            self.check()
        return result


class Election(Protocol):
    """How a control plane comes to lead and stays there."""

    async def win(self, found: Callable[[str], None]) -> Tenure:
        """Wait until we lead; `found` hears the target of who does meanwhile, or ""."""
        ...

    async def keep(self, tenure: Tenure) -> None:
        """Renew for ever; raises DeposedError."""
        ...

    async def resign(self, tenure: Tenure) -> None:
        """Let somebody else lead at once, if the store can be told."""
        ...


class Alone:
    """The election where the store is one process's own: won already, for ever."""

    async def win(self, found: Callable[[str], None]) -> Tenure:
        """See the protocol."""
        return Tenure()

    async def keep(self, tenure: Tenure) -> None:
        """See the protocol."""
        await asyncio.Event().wait()

    async def resign(self, tenure: Tenure) -> None:
        """See the protocol."""


class StoreElection:
    """The election among all who share a store."""

    def __init__(self, store: Store, candidate: Candidate) -> None:
        self._store = store
        self._candidate = candidate

    async def win(self, found: Callable[[str], None]) -> Tenure:
        """See the protocol; raises StoreError."""
        while True:
            holder, revision = await self.look()
            if holder is None:
                found("")
                tenure = await self.claim()
                if tenure is not None:
                    return tenure
                continue
            # a key that we put there ourselves, in a life before, is nobody's
            found(holder.target if holder.target != self._candidate.target else "")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed(revision)
                    found("")  # so that one who follows himself is known to be elected anew

    async def look(self) -> tuple[Candidate | None, int]:
        """Who holds the key, and the revision at which that was so."""
        listing = await self._store.range(LEADER_KEY)
        for entry in listing.entries:
            if entry.key == LEADER_KEY:
                return unpack(entry.value, Candidate) or Candidate("", ""), listing.revision
        return None, listing.revision

    async def claim(self) -> Tenure | None:
        """Put our name there if nobody's is; None when another was quicker."""
        sent_s = clock.now_s()
        lease = await self._store.grant(TTL_S)
        put = Put(LEADER_KEY, msgspec.json.encode(self._candidate), lease)
        result = await self._store.txn([Absent(LEADER_KEY)], [put])
        if not result.succeeded:
            await self._store.revoke(lease)
            return None
        return Tenure((RevisionIs(LEADER_KEY, result.revision),), lease, _until_s(sent_s))

    async def keep(self, tenure: Tenure) -> None:
        """See the protocol."""
        wait_s = RENEW_S
        trouble = Trouble(
            log, "the leader's lease was not renewed", "the leader's lease is renewed again"
        )
        while True:
            await asyncio.sleep(wait_s)
            tenure.check()
            left_s = tenure.until_s - clock.now_s()
            try:
                async with asyncio.timeout(min(RENEW_S, left_s)):  # a hanging one is not the last
                    await self.renew(tenure)
                wait_s = RENEW_S
                trouble.off()
            except DeposedError:
                raise
            except (StoreError, TimeoutError) as error:
                wait_s = RETRY_S
                trouble.on(error=str(error) or f"no answer in {RENEW_S} s")

    async def renew(self, tenure: Tenure) -> None:
        """Keep the lease alive and see that the key is still ours."""
        sent_s = clock.now_s()
        try:
            await self._store.keepalive(tenure.lease)
        except LeaseLostError as error:
            tenure.until_s = -math.inf
            raise DeposedError(f"the leader's lease is over: {error}") from error
        await tenure.write(self._store, ())  # somebody may have removed the key by hand
        tenure.until_s = max(tenure.until_s, _until_s(sent_s))

    async def resign(self, tenure: Tenure) -> None:
        """See the protocol."""
        tenure.until_s = -math.inf
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(RESIGN_S):
                await self._store.revoke(tenure.lease)

    async def _changed(self, revision: int) -> None:
        """Wait for a change of the key after a revision."""
        async with aclosing(self._store.watch(LEADER_KEY, revision + 1)) as changes:  # type: ignore[type-var]
            async for _ in changes:
                return


def _until_s(sent_s: float) -> float:
    return sent_s + SAFE_RATIO * TTL_S

"""The leader's seat, as the servicers see it: ours, another's, or empty.

Rules: who does not lead serves no agent and no edge: it names the leader, and the peer goes there.
While nobody leads, or only one whom the peer has just lost, calls wait here for the election's
end, so that peers are served at once instead of backing off around it; at most WAITING_LIMIT calls.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, NoReturn

import grpc

from controlplane import state
from controlplane.leader import Tenure
from controlplane.loop import ControlLoop
from controlplane.settings import Settings
from controlplane.store.protocol import Store
from trimtab.runtime.targets import LEADER_METADATA, LOST_METADATA
from trimtab.views import Fleet

PATIENCE_S = 3.0  # an election takes the lease's 2 s and a bit
WAITING_LIMIT = 2_000  # 1,000 agents, 100 edges, and as many again; the rest back off
Context = grpc.aio.ServicerContext[Any, Any]


class Seat:
    """Who leads, as far as this control plane knows."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._changed = asyncio.Event()
        self.loop: ControlLoop | None = None  # while we lead
        self.leader = ""  # the target of another who leads
        self.waiting = 0  # calls

    def take(self, loop: ControlLoop) -> None:
        """We lead."""
        self._set(loop, "")

    def leave(self, leader: str = "") -> None:
        """We do not lead; `leader` does, if known."""
        self._set(None, leader)

    def turned_away(self, name: str, problem: str) -> None:
        """A peer's certificate did not let it in, or any more: one of the things that happen."""
        if self.loop is not None:
            self.loop.note("certificate refused", {"node": name, "problem": problem})

    async def loop_or_refuse(self, context: Context) -> ControlLoop:
        """Our loop; otherwise the call ends, with the leader's target."""
        await self.wait(context)
        if self.loop is None:
            await self.refuse(context)
        return self.loop

    async def wait(self, context: Context) -> None:
        """Wait a while for a leader other than the one this peer has lost."""
        lost = dict(context.invocation_metadata() or ()).get(LOST_METADATA, "")
        if self.waiting >= WAITING_LIMIT:
            return
        self.waiting += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self.loop is None and self.leader in {"", lost}:
                    await self._changed.wait()
                    lost = ""  # whoever leads now was elected since, also if it is the same
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1

    async def refuse(self, context: Context) -> NoReturn:
        """End a call that only the leader can serve."""
        text = f"the leader is {self.leader}" if self.leader else "no control plane leads now"
        await context.abort(grpc.StatusCode.UNAVAILABLE, text, ((LEADER_METADATA, self.leader),))

    async def stored_fleet(self) -> Fleet:
        """What the store knows of the fleet, with no leader's name on it; raises StoreError."""
        reader = ControlLoop(self._settings, self._store, 0, Tenure())
        reader.load(await state.load(self._store))
        return replace(reader.fleet(), leader="")

    def _set(self, loop: ControlLoop | None, leader: str) -> None:
        if (self.loop, self.leader) != (loop, leader):
            self.loop, self.leader = loop, leader
            self._changed.set()
            self._changed = asyncio.Event()

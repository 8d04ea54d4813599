"""The status page over a source that a test turns as it likes, on a free port of this machine."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from aiohttp import web

from tests.fakes.fleet import EVENTS, FLEET, GPU0, GPU1, WHY_GPU1
from trimtab import history, status
from trimtab.history import ENGINES, USES
from trimtab.runtime import clock, page
from trimtab.runtime.page import Page, Source
from trimtab.verdict import judge
from trimtab.views import Fleet, ReplicaView

PAST_S = 900


@asynccontextmanager
async def served(source: Source) -> AsyncIterator[str]:
    """Its URL, for the length of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with page.serving(web.Application(), "127.0.0.1", port, Page(source)):
        yield f"http://127.0.0.1:{port}/"


def storm(names: Sequence[str], at_s: float, seconds: int = PAST_S) -> history.History:
    """A past in which the last name was ejected two minutes ago and the others see-saw a bit."""
    found = history.History(at_s - seconds)
    ejected, stalled = USES.index("ejected"), ENGINES.index("STALLED")
    for second in range(seconds):
        out = seconds - second < 120
        moments = {}
        for i, name in enumerate(names):
            sick = out and i == len(names) - 1
            begun = 0 if sick else round(6 + 4 * math.sin(second / 9 + i))
            state = (ejected, stalled) if sick else (1, 1)
            busy = 0 if sick else 60 + second % 7
            moments[name] = history.Replica("m", begun, busy, 0 if sick else 128, 3, *state)
        found.add(at_s - seconds + second, moments, {"m": history.Pool(12, 1, second % 40)})
    return found


def fleet_of(healthy: Sequence[str], sick: str) -> Fleet:
    """Replicas of one pool, all as gpu0 but one as gpu1."""

    def named(view: ReplicaView, name: str) -> ReplicaView:
        return replace(view, route=replace(view.route, replica=name, pool="m"))

    rows = (*(named(GPU0, name) for name in healthy), named(GPU1, sick))
    pools = (replace(FLEET.pools[0], pool="m", replicas=len(rows), open=len(healthy)),)
    return replace(FLEET, replicas=rows, pools=pools)


@dataclass
class ShownFleet:
    """A page's source: a fleet and its past."""

    fleet: Fleet
    kept: history.History
    seen_by: str = "control plane"
    tenants: tuple[status.Tenant, ...] = (status.Tenant("lab", "m", 3, 4.5, None, 0.7),)
    requests: tuple[status.Request, ...] | None = None
    moments: int = 0
    since_s: float = field(default_factory=clock.wall_s)

    def remember(self, at_s: float) -> list[history.Finished]:
        """Another second like the last."""
        self.moments += 1
        names = [view.route.replica for view in self.fleet.replicas]
        busy = history.Replica("m", 5, 60, 128, 0, 1, 1)
        return self.kept.add(at_s, dict.fromkeys(names, busy), {"m": history.Pool(12)})

    def look(self, at_s: float) -> status.Look:
        """As the test has it."""
        shown = status.Look(self.seen_by, "cp1", self.fleet, judge(self.fleet), at_s, self.since_s)
        events = [replace(one, at_ms=round(1000 * self.since_s) - 120_000) for one in EVENTS]
        return replace(shown, tenants=self.tenants, requests=self.requests, events=events)

    def past(self) -> history.History:
        """As remembered."""
        return self.kept

    async def explain(self, replica: str) -> object:
        """Always the same reasons."""
        known = {view.route.replica for view in self.fleet.replicas}
        if replica not in known:
            raise KeyError(replica)
        return status.explained(replace(WHY_GPU1, replica=replica))

"""What the status page shows of a control plane: the fleet if it leads, else who does.

Rules: the past is this leader's own, and begins anew with each; nothing is read from the store.
"""

from __future__ import annotations

from controlplane import explaining
from controlplane.core.past import Past, tenants
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from trimtab import history, status
from trimtab.runtime import clock
from trimtab.verdict import Level, Verdict, judge
from trimtab.views import Fleet

SEEN_BY = "control plane"


class Watch:
    """The page's source."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._loop: ControlLoop | None = None
        self._past = Past(clock.wall_s())

    def remember(self, at_s: float) -> list[history.Finished]:
        """See the page."""
        loop = self._seat.loop
        if loop is not self._loop:
            self._loop, self._past = loop, Past(at_s)
        return self._past.take(loop.registry, clock.now_s(), at_s) if loop else []

    def look(self, at_s: float) -> status.Look:
        """See the page."""
        loop, since_s = self._seat.loop, self._past.history.since_s
        if loop is None:
            return status.Look(SEEN_BY, "", Fleet(), _standby(self._seat.leader), at_s, since_s)
        fleet, journal = loop.fleet(), loop.journal
        return status.Look(
            seen_by=SEEN_BY,
            name=fleet.leader,
            fleet=fleet,
            verdict=judge(fleet),
            at_s=at_s,
            since_s=since_s,
            facts=_facts(fleet),
            tenants=tenants(loop.registry.edges.by_name.values(), clock.now_s()),
            events=journal.after(max(0, journal.newest - status.EVENTS_SHOWN))[0],
        )

    def past(self) -> history.History:
        """See the page."""
        return self._past.history

    async def explain(self, replica: str) -> object:
        """See the page; as `ctl explain replica`."""
        if self._seat.loop is None:
            raise KeyError(replica)
        return status.explained(await explaining.replica(self._seat.loop, replica))


def _standby(leader: str) -> Verdict:
    if leader:
        return Verdict(Level.OK, f"this control plane stands by; {leader} leads and knows more", ())
    return Verdict(Level.DEGRADED, "no control plane leads; edges go on with what they have", ())


def _facts(fleet: Fleet) -> tuple[tuple[str, str], ...]:
    synced, connected = sum(e.in_sync for e in fleet.edges), sum(a.connected for a in fleet.agents)
    return (
        ("leader", fleet.leader),
        ("term", str(fleet.term)),
        ("version", str(fleet.version)),
        ("edges", f"{synced}/{len(fleet.edges)} in sync"),
        ("agents", f"{connected}/{len(fleet.agents)} connected"),
        ("software", fleet.controlplane_version),
    )

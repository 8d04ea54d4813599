"""What the status page shows of one edge: its beliefs, its own traffic, and who is on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice

from edge.admission import Admission, Permit
from edge.config import EdgeConfig
from edge.core.belief import Belief, Self
from edge.core.dispatch import Dispatch
from edge.core.table import RoutingTable
from edge.course import Job
from edge.feed import Feed
from edge.proxy import Proxy
from edge.server import Endpoint
from trimtab import history, status
from trimtab.runtime import clock
from trimtab.views import Fleet


@dataclass(slots=True)
class Beliefs:
    """The page's source: reads the parts of one edge."""

    config: EdgeConfig
    table: RoutingTable
    dispatch: Dispatch
    admission: Admission
    endpoint: Endpoint
    proxy: Proxy
    feed: Feed
    _belief: Belief = field(init=False)

    def __post_init__(self) -> None:
        self._belief = Belief(self.table, self.dispatch, clock.wall_s())

    def remember(self, at_s: float) -> list[history.Finished]:
        """See the page."""
        return self._belief.take(clock.now_s(), at_s)

    def look(self, at_s: float) -> status.Look:
        """See the page."""
        belief, now_s, about = self._belief, clock.now_s(), self._self()
        fleet = belief.fleet(about, now_s)
        running = (permit.placement for permit in self.admission.running())
        return status.Look(
            seen_by="edge",
            name=about.name,
            fleet=fleet,
            verdict=belief.judge(fleet, about, now_s),
            at_s=at_s,
            since_s=belief.history.since_s,
            facts=self._facts(fleet, about),
            avoided=belief.avoided(now_s),
            tenants=belief.tenants(((p.pool, p.ticket.tenant) for p in running), now_s),
            requests=self._requests(at_s - now_s),
        )

    def past(self) -> history.History:
        """See the page."""
        return self._belief.history

    async def explain(self, replica: str) -> object:
        """See the page."""
        return status.explained(self._belief.explain(replica, clock.now_s()))

    def _self(self) -> Self:
        return Self(
            self.config.name,
            version("trimtab"),
            self.config.listen_url,
            self.feed.silent_s,
            self.endpoint.draining,
        )

    def _facts(self, fleet: Fleet, about: Self) -> tuple[tuple[str, str], ...]:
        return (
            ("serves", about.listen_url),
            ("term", str(fleet.term)),
            ("version", str(fleet.version)),
            ("heard", f"{about.silent_s:.1f} s ago"),
            ("rule", self.dispatch.mode.name.lower()),
            ("software", about.version),
        )

    def _requests(self, wall_offset_s: float) -> list[status.Request]:
        """The oldest under way."""
        permits = {p.placement.ticket.number: p for p in self.admission.running()}
        oldest = islice(self.proxy.live.items(), status.REQUESTS_SHOWN)
        return [self._request(job, permits.get(n), wall_offset_s) for n, job in oldest]

    def _request(self, job: Job, permit: Permit | None, wall_offset_s: float) -> status.Request:
        ticket = job.ticket
        replica = permit.route.replica if permit else ""
        return status.Request(
            request_id=job.request_id,
            since_s=round(ticket.since_s + wall_offset_s, 1),
            tenant=ticket.tenant,
            pool=job.pool.name,
            replica=replica,
            tokens=permit.tokens if permit else 0,
            attempts=len(job.notes.attempts) + (permit is not None),
            began=bool(permit) and ticket.number in self.dispatch.replica(replica).streaming,
        )

"""What the control plane last told this edge: pools, routes, keys, policy, credits.

Rules: an update applies only when (term, version) is greater than the last one; a delta only on
the very snapshot it was made against; anything else is refused with a reason and changes nothing.
"""

from __future__ import annotations

from edge.core import models
from edge.core.models import Targets
from trimtab.model import (
    ApiKey,
    Credit,
    Credits,
    EdgePolicy,
    EdgeUpdate,
    PoolPace,
    Route,
    Serving,
    Snapshot,
)
from trimtab.policy.delta import patch


class RoutingTable:
    """The newest applied state, with the look-ups that requests need."""

    def __init__(self) -> None:
        self.term = 0
        self.version = 0
        self.snapshot = Snapshot()
        self.credits: dict[str, Credit] = {}
        self.paces: tuple[PoolPace, ...] = ()
        self.leaving = False
        """An operator drains this edge."""
        self._base_version = 0
        self.targets: Targets = {}
        """What can be asked for, by name."""
        self._routes: dict[str, tuple[Route, ...]] = {}
        self._by_replica: dict[str, Route] = {}
        self._keys: dict[bytes, ApiKey] = {}

    @property
    def ready(self) -> bool:
        """Whether any snapshot was ever applied."""
        return self.term > 0

    @property
    def policy(self) -> EdgePolicy:
        """Limits and timers."""
        return self.snapshot.policy

    def apply(self, update: EdgeUpdate) -> str:
        """Take an update; the reason when it is refused, else nothing."""
        refusal = self._refusal(update)
        if refusal:
            return refusal
        if isinstance(update.body, Credits):
            self.credits = {credit.replica: credit for credit in update.body.credits}
            self.paces, self.leaving = update.body.paces, update.body.leaving
        else:
            body = update.body
            self._index(body if isinstance(body, Snapshot) else patch(self.snapshot, body))
            self._base_version = update.version
        self.term, self.version = update.term, update.version
        return ""

    def restore(self, term: int, snapshot: Snapshot, credits: Credits) -> None:  # noqa: A002
        """Start from what was kept on disk; any push of this term or a later one is newer."""
        if self.ready or term < 1 or _inconsistency(snapshot):
            return
        self._index(snapshot)
        self.credits = {credit.replica: credit for credit in credits.credits}
        self.term = term

    def open_replicas(self) -> int:
        """How many replicas may get requests now, over all pools."""
        return sum(route.serving is Serving.OPEN for route in self.snapshot.routes)

    def routes(self, pool: str) -> tuple[Route, ...]:
        """The replicas of a pool."""
        return self._routes.get(pool, ())

    def route(self, replica: str) -> Route:
        """The way to a replica that is in the table."""
        return self._by_replica[replica]

    def key(self, sha256: bytes) -> ApiKey | None:
        """The key with that hash."""
        return self._keys.get(sha256)

    def _refusal(self, update: EdgeUpdate) -> str:
        if (update.term, update.version) <= (self.term, self.version):
            return (
                f"stale: have term {self.term} version {self.version}, "
                f"got term {update.term} version {update.version}"
            )
        if isinstance(update.body, Snapshot):
            return _inconsistency(update.body)
        if update.term != self.term:
            return f"term {update.term} must open with a snapshot"
        if isinstance(update.body, Credits):
            return ""
        if update.body.base_version != self._base_version:
            return f"delta on version {update.body.base_version}, have {self._base_version}"
        return _inconsistency(patch(self.snapshot, update.body))

    def _index(self, snapshot: Snapshot) -> None:
        routes: dict[str, list[Route]] = {pool.name: [] for pool in snapshot.pools}
        for route in snapshot.routes:
            routes[route.pool].append(route)
        self.snapshot = snapshot
        self.targets = models.targets(snapshot)
        self._routes = {pool: tuple(found) for pool, found in routes.items()}
        self._by_replica = {route.replica: route for route in snapshot.routes}
        self._keys = {key.sha256: key for key in snapshot.keys}


def _inconsistency(snapshot: Snapshot) -> str:
    pools = {pool.name for pool in snapshot.pools}
    orphans = [route.replica for route in snapshot.routes if route.pool not in pools]
    if orphans:
        return f"routes without a pool: {', '.join(orphans[:5])}"
    if len({route.replica for route in snapshot.routes}) < len(snapshot.routes):
        return "two routes of one name"
    return ""

"""Work charged to tenants at all edges of one pool, and who waits where.

Rules: an edge tells what is new; its sums are kept by its name over new streams, so that a
reconnect is no jump for the others. Bounded: TENANTS_LIMIT tenants and ENTRIES_LIMIT entries told,
those with the most waiting first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from controlplane.core.bounds import EDGE_LIMIT
from controlplane.core.edges import Edge, Who
from trimtab.model import Elsewhere, TenantUse
from trimtab.policy.fairness import Shares
from trimtab.policy.urgency import known

TENANTS_LIMIT = 4_096
ENTRIES_LIMIT = 64


class Charges:
    """Of one pool; `shares` is the order of tenants over all edges."""

    def __init__(self) -> None:
        self.shares = Shares()
        self._total: dict[Who, float] = {}
        self._of: dict[str, dict[Who, float]] = {}
        self._queued: Counter[Who] = Counter()
        self._queued_at: dict[str, Counter[Who]] = {}
        self._waiting: set[str] = set()

    def take(
        self,
        pool: str,
        edges: Mapping[str, Edge],
        waiting: Mapping[str, tuple[TenantUse, ...]],
    ) -> None:
        """Take in what edges told since the last call, and who waits at each now."""
        for name, edge in edges.items():
            for who, amount in edge.charged.pop(pool, {}).items():
                self._charge(name, who, amount)
        for name in [name for name in self._of if name not in edges][EDGE_LIMIT:]:
            del self._of[name]
        self._queued_at = {name: _work(uses) for name, uses in waiting.items()}
        self._queued = Counter()
        for queued in self._queued_at.values():
            self._queued.update(queued)
        self._lift({use.tenant for uses in waiting.values() for use in uses if use.queued})

    def elsewhere(self, edge: str) -> tuple[Elsewhere, ...]:
        """What an edge is told of the others."""
        if len(self._of.keys() | self._queued_at.keys()) < 2:
            return ()
        own, queued = self._of.get(edge, {}), self._queued_at.get(edge, Counter())
        entries = [
            Elsewhere(
                tenant=who[1],
                urgency=who[0],
                queued_work=max(0.0, self._queued[who] - queued[who]),
                charged_work=self._total.get(who, 0.0) - own.get(who, 0.0),
            )
            for who in self._total.keys() | self._queued.keys()
        ]
        entries.sort(key=lambda e: (-e.queued_work, -e.charged_work, e.tenant, e.urgency))
        return tuple(entries[:ENTRIES_LIMIT])

    def _charge(self, edge: str, who: Who, amount: float) -> None:
        if who not in self._total and len(self._total) >= TENANTS_LIMIT:
            return
        of = self._of.setdefault(edge, {})
        of[who] = of.get(who, 0.0) + amount
        self._total[who] = self._total.get(who, 0.0) + amount
        self.shares.charge(who[1], amount)

    def _lift(self, waiting: set[str]) -> None:
        for tenant in sorted(self._waiting - waiting):
            self.shares.left(tenant)
        before = self._waiting & waiting
        for tenant in sorted(waiting - self._waiting):
            self.shares.lift(tenant, before)
        self._waiting = waiting


def _work(uses: tuple[TenantUse, ...]) -> Counter[Who]:
    queued: Counter[Who] = Counter()
    for use in uses:
        queued[known(use.urgency), use.tenant] += use.queued_work  # type: ignore[assignment]
    return queued

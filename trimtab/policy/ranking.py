"""Whose waiting requests go first, over all edges of a pool: one queue's order, kept in many.

Rules: the order is the queue's own: urgency with its guarantee; then tenants in turn, by work
charged; then age. A report tells the ages of its oldest requests; those that it does not tell count
as young as the youngest told.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from trimtab.model import TenantUse, Urgency
from trimtab.policy.urgency import known, parts


class _Line:
    """One tenant's requests of one urgency at all edges, oldest first."""

    def __init__(self) -> None:
        self.heads: list[tuple[int, str, float]] = []  # age, edge, requests
        self.queued = 0
        self.work = 0.0

    def add(self, edge: str, use: TenantUse) -> None:
        self.queued += use.queued
        self.work += use.queued_work
        told = use.ages_ms[: use.queued]
        self.heads += [(age_ms, edge, 1.0) for age_ms in told]
        if use.queued > len(told):
            self.heads.append((told[-1] if told else 0, edge, float(use.queued - len(told))))

    def take(self, count: float) -> Iterable[tuple[str, float]]:
        """The oldest `count`, edge by edge; call after sorting youngest first."""
        while count > 0.0 and self.heads:
            age_ms, edge, number = self.heads.pop()
            taken = min(number, count)
            if number > taken:
                self.heads.append((age_ms, edge, number - taken))
            count -= taken
            yield edge, taken


def first(
    waiting: Mapping[str, Iterable[TenantUse]], counters: Mapping[str, float], count: float
) -> dict[str, float]:
    """How many of the first `count` waiting requests each edge has; fractions are parts of one.

    O(n log n) in the number of ages told, and of `count` where several tenants wait.
    """
    lines: dict[Urgency, dict[str, _Line]] = defaultdict(lambda: defaultdict(_Line))
    for edge, uses in waiting.items():
        for use in uses:
            if use.queued:
                lines[known(use.urgency)][use.tenant].add(edge, use)
    queued = {u: float(sum(line.queued for line in of.values())) for u, of in lines.items()}
    found: Counter[str] = Counter()
    for urgency, part in parts(queued, count).items():
        for edge, number in _turns(lines[urgency], counters, part):
            found[edge] += number  # type: ignore[assignment]  # a Counter of parts
    return dict(found)


def _turns(
    lines: dict[str, _Line], counters: Mapping[str, float], count: float
) -> Iterable[tuple[str, float]]:
    for line in lines.values():
        line.heads.sort(reverse=False)
    if len(lines) == 1:
        yield from next(iter(lines.values())).take(count)
        return
    turns = [(counters.get(tenant, 0.0), tenant) for tenant in lines]
    heapq.heapify(turns)
    while turns and count > 0.0:
        used, tenant = heapq.heappop(turns)
        line = lines[tenant]
        step = min(1.0, count)
        yield from line.take(step)
        count -= step
        if line.heads:
            heapq.heappush(turns, (used + line.work / line.queued, tenant))

"""Whose turn it is among tenants: a virtual counter of work each (VTC, OSDI 2024).

Rules: the tenant with the least work charged goes first; work is charged at dispatch by estimate
and corrected when the truth is known. A tenant that begins to wait is lifted to the least of
those that wait, or to the last that left: idle time earns nothing. So two tenants that both wait
get the same work, up to one request each. Work is charged in the one unit of `work`, in which a
prompt token costs what it costs the engine (the paper's 1 and 2 a token are prices, not costs).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

TENANT_LIMIT = 1024  # counters kept; the least one says the least


@dataclass(slots=True)
class Shares:
    """The counters of one pool's tenants."""

    counters: dict[str, float] = field(default_factory=dict)
    _last: float = 0.0  # of the tenant that left last

    def lift(self, tenant: str, waiting: Collection[str]) -> None:
        """The tenant begins to wait; `waiting` are those that wait already."""
        floor = min((self.counters.get(other, 0.0) for other in waiting), default=self._last)
        self.counters[tenant] = max(self.counters.get(tenant, floor), floor)
        if len(self.counters) > TENANT_LIMIT:
            idle = [name for name in self.counters if name != tenant and name not in waiting]
            if idle:
                del self.counters[min(idle, key=self.counters.__getitem__)]

    def pass_by(self, tenant: str) -> None:
        """The tenant waits for no time, and nobody else does: `lift`, and `left`."""
        counter = self.counters.get(tenant)
        if counter is None or len(self.counters) > TENANT_LIMIT:
            self.lift(tenant, ())
            counter = self.counters[tenant]
        self._last = self.counters[tenant] = max(counter, self._last)

    def charge(self, tenant: str, amount: float) -> None:
        """Work was given to the tenant, or taken back (negative)."""
        self.counters[tenant] = self.counters.get(tenant, self._last) + amount

    def left(self, tenant: str) -> None:
        """Nothing of the tenant waits any more."""
        self._last = self.counters.get(tenant, self._last)

    def order(self, waiting: Collection[str]) -> list[str]:
        """Those that wait, whose turn comes first at the front. O(n log n)."""
        if len(waiting) == 1:
            return list(waiting)
        return sorted(waiting, key=lambda tenant: self.counters.get(tenant, 0.0))

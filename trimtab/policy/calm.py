"""How long a new request may wait now: long after a calm time, short while the queue stands.

After Facebook's CoDel ("Fail at Scale", 2015). A burst after a calm time is taken in with the long
budget, since it will drain; a queue that has stood for as long as that only makes everybody late,
and gets the short one. Calm is a wait below CALM_RATIO of the short budget, and it must last for
the short budget: a queue that refuses is empty at moments, while the refused are on their way back.
All budgets scale with the long one of the default urgency. One tenant's flood is not another's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtab.model import Urgency
from trimtab.policy.urgency import BUDGETS_S, known

CALM_RATIO = 0.1
LONG_S = BUDGETS_S[Urgency.DEFAULT][0]
WATCHED_LIMIT = 4096  # tenants; the one not seen for longest is forgotten, as if it were new


@dataclass(slots=True)
class _Watch:
    """One tenant's waits of one urgency."""

    looked_s: float
    calm_s: float
    """The last time that it was calm for long enough; a new one is."""
    since_s: float | None
    wait_s: float = 0.0

    def look(self, wait_s: float, short_s: float, now_s: float) -> None:
        """A new request would wait this long now."""
        if wait_s >= CALM_RATIO * short_s:
            self.since_s = None
        elif self.since_s is None:  # the wait seen last ended between the two looks
            self.since_s = min(now_s, self.looked_s + self.wait_s)
        if self.since_s is not None and now_s - self.since_s >= short_s:
            self.calm_s = now_s
        self.looked_s, self.wait_s = now_s, wait_s


@dataclass(slots=True)
class Budgets:
    """The budgets of one pool at one edge; `long_s` is the default urgency's."""

    long_s: float = LONG_S
    _watches: dict[tuple[Urgency, str], _Watch] = field(default_factory=dict)

    def now(self, urgency: Urgency, tenant: str, wait_s: float, now_s: float) -> float:
        """How long a request may wait at most, when it would wait for `wait_s`."""
        long_s, short_s = self._scaled(urgency)
        watch = self._watches.pop((urgency, tenant), None) or _Watch(now_s, now_s, now_s)
        self._watches[urgency, tenant] = watch
        if len(self._watches) > WATCHED_LIMIT:
            del self._watches[next(iter(self._watches))]
        watch.look(wait_s, short_s, now_s)
        return long_s if now_s - watch.calm_s <= long_s else short_s

    def longest_s(self, urgency: Urgency) -> float:
        """How long one that was let in may wait."""
        return self.long_s / LONG_S * BUDGETS_S[known(urgency)][0]

    def _scaled(self, urgency: Urgency) -> tuple[float, float]:
        long_s, short_s = BUDGETS_S[known(urgency)]
        scale = self.long_s / LONG_S
        return scale * long_s, scale * short_s

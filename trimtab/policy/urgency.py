"""What urgency means: how long a request may wait, and what the urgent leave to the others.

Rules: the more urgent goes first, but each less urgent one that waits gets GUARANTEE of the
departures, so that nothing starves. Two budgets each, for a queue that was short lately and for one
that stands; the long ones stay below the patience of the clients that send such requests (60 s is
common, so 45; a person at a screen gives up after 20).
"""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.model import Urgency

GUARANTEE = 0.05
BUDGETS_S = {  # long, short
    Urgency.CRITICAL: (60.0, 15.0),
    Urgency.INTERACTIVE: (20.0, 3.0),
    Urgency.DEFAULT: (45.0, 5.0),
    Urgency.BATCH: (600.0, 120.0),
}


def known(urgency: Urgency) -> Urgency:
    """One that has budgets: a newer peer's and none at all read as DEFAULT."""
    return urgency if urgency in BUDGETS_S else Urgency.DEFAULT


def parts(waiting: Mapping[Urgency, float], count: float) -> dict[Urgency, float]:
    """How many of the next `count` departures each urgency gets, of those that wait."""
    order = sorted(urgency for urgency, number in waiting.items() if number > 0)
    got = {urgency: min(waiting[urgency], GUARANTEE * count) for urgency in order[1:]}
    left = max(0.0, count - sum(got.values()))
    for urgency in order:
        more = min(waiting[urgency] - got.get(urgency, 0.0), left)
        got[urgency] = got.get(urgency, 0.0) + more
        left -= more
    return got

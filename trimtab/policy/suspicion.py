"""One edge's own, self-expiring doubt about a replica.

An edge can't eject: it can only look elsewhere for a moment. Each HARD or PATH outcome avoids the
replica for 2 s, doubling to 10 s while they go on; one OK clears it. Fast failures also count as
load for a while (+4 slots each, x0.7 a second), else the replica that fails in 50 ms looks idle
and draws everything (the sinkhole; Prequal, NSDI 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.model import Outcome

FIRST_S = 2.0
CAP_S = 10.0
AVERSION_SLOTS = 4.0
AVERSION_DECAY_PER_S = 0.7
FAILURES = frozenset({Outcome.SOFT, Outcome.HARD, Outcome.PATH})
HARMS = frozenset({Outcome.HARD, Outcome.PATH})


@dataclass(slots=True)
class Suspicion:
    """The doubt about one replica."""

    until_s: float = float("-inf")
    length_s: float = 0.0
    aversion_slots: float = 0.0
    _decayed_s: float = 0.0

    def observe(self, outcome: Outcome, now_s: float) -> None:
        """An attempt on the replica ended so."""
        if outcome is Outcome.OK:
            self.until_s = float("-inf")
            self.length_s = 0.0
        elif outcome in FAILURES:
            self.aversion_slots = self.penalty_slots(now_s) + AVERSION_SLOTS
            self._decayed_s = now_s
        if outcome in HARMS and not self.active(now_s):
            self.length_s = min(CAP_S, max(FIRST_S, 2.0 * self.length_s))
            self.until_s = now_s + self.length_s

    def active(self, now_s: float) -> bool:
        """Whether to avoid the replica now."""
        return now_s < self.until_s

    def penalty_slots(self, now_s: float) -> float:
        """Load to add to the replica's own in the score, slots."""
        if not self.aversion_slots:
            return 0.0
        return self.aversion_slots * float(
            AVERSION_DECAY_PER_S ** max(0.0, now_s - self._decayed_s)
        )

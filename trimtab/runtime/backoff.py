"""Waits between attempts to reach a peer: equal jitter, doubling to a cap.

Half of each wait is sure, half is dice, so that a crowd that lost the same peer comes back spread
out (Brooker, "Exponential Backoff And Jitter", AWS 2015). An attempt that was held, as calls are
during an election, has waited already: what it took counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.policy.dice import Dice


@dataclass(slots=True)
class Backoff:
    """`next_s()` after each failure, `reset()` after a success."""

    dice: Dice
    first_s: float = 0.2
    cap_s: float = 2.0  # how long a peer that is back may go unnoticed
    _failures: int = 0

    def next_s(self, tried_s: float = 0.0) -> float:
        """Seconds to wait before the next attempt, after one that failed in `tried_s`."""
        ceiling_s = min(self.cap_s, self.first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return max(0.0, ceiling_s * (0.5 + 0.5 * self.dice.random()) - tried_s)

    def reset(self) -> None:
        """Start over from the first wait."""
        self._failures = 0

"""When an engine that is to stop may be stopped.

Rules: it counts as empty once nothing ran or waited in it for QUIET_S without a break, counted from
the wish: edges hear of it within a second, and what they sent before that has arrived by then; an
engine that is gone has nothing left to wait for, and ends the wish, so that its next start serves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

QUIET_S = 2.0


@dataclass(frozen=True, slots=True)
class Leaving:
    """The wish of someone on this node that an engine gets nothing more."""

    busy_s: float
    """When it was last seen with work, or the wish came."""
    work: int | None = None
    """Requests running and waiting in it; None: it could not be read."""
    gone: bool = False

    def seen(self, work: int | None, now_s: float, *, gone: bool) -> Leaving:
        """After another look."""
        busy_s = self.busy_s if work == 0 else now_s
        return replace(self, busy_s=busy_s, work=work, gone=self.gone or gone)

    def empty(self, now_s: float) -> bool:
        """Whether it may be stopped."""
        return self.gone or (self.work == 0 and now_s - self.busy_s >= QUIET_S)

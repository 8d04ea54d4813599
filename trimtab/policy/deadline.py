"""How long one request may take, and who says so.

Rules: the caller's own word counts, because nobody hears an answer after it; an operator's limit
for the pool is never exceeded, whatever the caller says; the fleet's is only for callers who say
nothing, and generous, since an answer may take minutes without anything being wrong. The word of a
caller who streams is about silence (the SDKs' read timeout), not about the whole: it bounds his
wait in the queue, and the whole of a plain answer, which is silent until it is there. Such a caller
hears of it a moment before his own timer ends, so that he sees our words and not a lost connection.
"""

from __future__ import annotations

from typing import NamedTuple

HEARD_RATIO, HEARD_MAX_S = 0.1, 1.0  # of the caller's time, left for the word that it is over


class Deadline(NamedTuple):
    """A time after which an answer is worth nothing, and in whose words."""

    allows_s: float
    whose: str
    margin_s: float = 0.0
    """So long before is given up, that whoever waits hears of it in time."""

    @property
    def within_s(self) -> float:
        """When it is given up."""
        return self.allows_s - self.margin_s


def deadline(patience_s: float | None, pool_s: float, fleet_s: float, *, stream: bool) -> Deadline:
    """Of one request; `pool_s` 0 if the pool has none."""
    limit = Deadline(pool_s, "this model allows") if pool_s else None
    if patience_s is not None and not stream:
        margin_s = min(HEARD_RATIO * patience_s, HEARD_MAX_S)
        told = Deadline(patience_s, "your client allows", margin_s)
        return min(told, limit, key=lambda one: one.within_s) if limit else told
    return limit or Deadline(fleet_s, "this fleet allows")

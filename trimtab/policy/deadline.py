"""How long one request may take, and who says so.

Rules: the caller's own word counts, because nobody hears an answer after it; an operator's limit
for the pool is never exceeded, whatever the caller says; the fleet's is only for callers who say
nothing, and generous, since an answer may take minutes without anything being wrong. The word of a
caller who streams is about silence (the SDKs' read timeout), not about the whole: it bounds his
wait in the queue, and the whole of a plain answer, which is silent until it is there.
"""

from __future__ import annotations

from typing import NamedTuple


class Deadline(NamedTuple):
    """A time after which an answer is worth nothing, and in whose words."""

    within_s: float
    whose: str


def deadline(patience_s: float | None, pool_s: float, fleet_s: float, *, stream: bool) -> Deadline:
    """Of one request; `pool_s` 0 if the pool has none."""
    limit = Deadline(pool_s, "this model allows") if pool_s else None
    if patience_s is not None and not stream:
        told = Deadline(patience_s, "your client allows")
        return min(told, limit, key=lambda one: one.within_s) if limit else told
    return limit or Deadline(fleet_s, "this fleet allows")

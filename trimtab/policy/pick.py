"""Which replica gets the next request.

score = (own in-flight + queue the engine reports + aversion) / slots, smallest wins; scores within
2 % are a tie that the dice break, loaded by an operator's weights if there are any. Own in-flight
is exact and fresh, and keeps edges from herding on stale reports (Mitzenmacher 2000); the report
only corrects for load that others put there. Rules: a replica without a free slot is never picked;
one that failed this very request is picked again only when no other open replica exists.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import msgspec

from trimtab.policy.dice import Dice

TIE_RATIO = 0.02


class Candidate(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A replica that may be picked."""

    replica: str
    slots: int
    inflight: int
    waiting: int = 0
    penalty_slots: float = 0.0
    weight: float = 1.0
    """Its part of the pool, beside the others'."""
    is_settled: bool = True
    """Whether conversations may have their home on it (`affinity`)."""
    share: float = 1.0
    """Of its limit, by an operator's weights (`shares`)."""

    @property
    def has_room(self) -> bool:
        """Whether it may be picked now."""
        return self.inflight < self.slots

    @property
    def load(self) -> float:
        """What it has to do, in requests."""
        return self.inflight + self.waiting + self.penalty_slots

    @property
    def score(self) -> float:
        """Load per slot; smaller is better."""
        return (self.inflight + self.waiting + self.penalty_slots) / (self.slots or 1)


def pick(candidates: Sequence[Candidate], tried: Collection[str], dice: Dice) -> str | None:
    """The replica's name; None when the request must wait."""
    fresh = [c for c in candidates if c.replica not in tried] if tried else candidates
    free, least = [], math.inf
    for one in fresh or candidates:  # in one go: this runs for every request
        if one.inflight < one.slots:
            score = (one.inflight + one.waiting + one.penalty_slots) / one.slots
            free.append((score, one))
            if score < least:  # noqa: PLR1730 - a call would cost as much as all else here
                least = score
    if not free:
        return None
    ties, total = [], 0.0
    for score, one in free:
        if score <= least + TIE_RATIO:
            ties.append(one)
            total += one.share
    at = dice.random() * total
    if total == len(ties):
        return ties[int(at)].replica
    for candidate in ties:
        at -= candidate.share
        if at < 0.0:
            break
    return candidate.replica

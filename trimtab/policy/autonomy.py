"""What an edge does when its control plane is silent: it holds its credits, then floats them.

Rules. The leader speaks twice a second, changed or not, so silence is a dead, hung or cut-off
leader, whatever the connection looks like; it is counted only while this process was awake to hear.
After HOLD_AFTER_S the edge holds what it was given; after AUTONOMOUS_AFTER_S it is on its own:
frozen credits would leave engines idle when clients move from one edge to another.

On its own, a replica's room floats by AIMD. At each first byte, while USED_RATIO of the room is in
use: one slot more if first bytes come about as soon as they did under the control plane (the engine
does not queue); a tenth less, once in CUT_GAP_S, if they come much later. Never above the replica's
whole limit, so that one edge alone gives it what the control plane would. A refusal of the engine
is a cut too, at most one in REFUSED_GAP_S; nothing listening means that it comes back cold: it
begins again with FLOOR_SLOTS.

"As soon" compares geometric means over about MEMORY answers: one long prompt among short ones moves
them little. A whole answer has no first byte; its seconds a token are compared, less sharply, but
enough that engines don't drown. What is normal is learnt while the control plane rules, and no
longer: a normal that followed the queue would let it grow for ever.
The leader's next credits end it. It sees what is in flight, so there is no cliff.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

HOLD_AFTER_S = 3.0
AUTONOMOUS_AFTER_S = 5.0
AWAKE_S = 1.0  # of a longer time between two looks we slept the rest, and heard nothing

USED_RATIO = 0.8
FLOOR_SLOTS = 4.0
CUT = 0.9
CUT_GAP_S = 5.0
REFUSED_GAP_S = 1.0
GROWS_BELOW = 2.0  # times the normal
CUTS_ABOVE = 4.0
SOON_S = 0.5  # a first byte this early is no queue, however early it was before; times 4: late
MEMORY = 8.0  # answers


class Mode(IntEnum):
    """Who rules an edge's room; the values are those of the metric."""

    NORMAL = 0
    HOLD = 1
    AUTONOMOUS = 2


@dataclass(slots=True)
class Silence:
    """How long nothing was heard of the control plane."""

    seconds: float = 0.0

    @property
    def mode(self) -> Mode:
        """Who rules."""
        if self.seconds > AUTONOMOUS_AFTER_S:
            return Mode.AUTONOMOUS
        return Mode.HOLD if self.seconds > HOLD_AFTER_S else Mode.NORMAL

    def heard(self) -> Mode:
        """A push was applied."""
        self.seconds = 0.0
        return self.mode

    def passed(self, elapsed_s: float) -> Mode:
        """So long since the last look."""
        self.seconds += min(max(0.0, elapsed_s), AWAKE_S)
        return self.mode


@dataclass(slots=True)
class Pace:
    """How long answers take now, and what was normal; `soon_s` is never late."""

    soon_s: float = 0.0
    normal: float | None = None
    _log: float | None = None
    _seen: float = 0.0

    def add(self, seconds: float, *, learn: bool) -> None:
        """One more answer; `learn`: this is normal."""
        value = math.log(max(1e-6, seconds))
        self._seen = min(MEMORY, self._seen + 1.0)
        self._log = value if self._log is None else self._log + (value - self._log) / self._seen
        if self._seen >= MEMORY and (learn or self.normal is None):
            self.normal = math.exp(self._log)

    @property
    def quick(self) -> bool:
        """Whether answers come as they should."""
        return self._is_below(GROWS_BELOW, self.soon_s)

    @property
    def late(self) -> bool:
        """Whether they come much later than they should."""
        known = self.normal is not None
        return known and not self._is_below(CUTS_ABOVE, self.soon_s * CUTS_ABOVE)

    def _is_below(self, ratio: float, least_s: float) -> bool:
        if self.normal is None or self._log is None:
            return False
        return math.exp(self._log) <= max(least_s, ratio * self.normal)


@dataclass(slots=True)
class Lease:
    """One replica's room at one edge while nobody grants it; else `slots` is None."""

    slots: float | None = None
    _limit: float = 0.0
    _first: Pace = field(default_factory=lambda: Pace(SOON_S))
    _whole: Pace = field(default_factory=Pace)
    _cut_s: float = float("-inf")

    def take_over(self, slots: int, limit_slots: int) -> None:
        """Begin with what was granted: at least one, or nobody would ever find out."""
        if self.slots is None:
            self.slots = max(1.0, float(slots))
            self._limit = max(self.slots, float(limit_slots))

    def give_back(self) -> None:
        """There are credits again."""
        self.slots = None

    def began(self, waited_s: float, used: int, now_s: float) -> None:
        """The first byte of a stream came so long after its dispatch, with so many in flight."""
        self._judge(self._first, waited_s, used, now_s)

    def ended(self, took_s: float, tokens: int, used: int, now_s: float) -> None:
        """A whole answer came."""
        self._judge(self._whole, took_s / max(1, tokens), used, now_s)

    def refused(self, now_s: float) -> None:
        """The engine turned a request away."""
        self._cut(now_s, REFUSED_GAP_S)

    def gone(self) -> None:
        """Nothing listens there."""
        if self.slots is not None:
            self.slots = min(self.slots, FLOOR_SLOTS)

    def _judge(self, pace: Pace, seconds: float, used: int, now_s: float) -> None:
        pace.add(seconds, learn=self.slots is None)
        if self.slots is None:
            return
        if pace.late:
            self._cut(now_s, CUT_GAP_S)
        elif pace.quick and used >= USED_RATIO * self.slots:
            self.slots = min(self._limit, self.slots + 1.0)

    def _cut(self, now_s: float, gap_s: float) -> None:
        if self.slots is not None and now_s - self._cut_s >= gap_s:
            self._cut_s = now_s
            self.slots = max(min(self.slots, FLOOR_SLOTS), CUT * self.slots)

"""How many requests one replica may have at once, over all edges: its limit, in slots.

The backlog belongs to the edges, so the limit is steered to leave a target of requests waiting in
the engine: one, and what ends in a round trip through the edges (ROUND_TRIP_S), at most
QUEUE_TARGET_MAX. That is enough to take a finished request's place in the very next step; more
would only make everybody wait where nobody can help them.

Rules: L += GAIN x (target - waiting) a second, on a fresh report only, between FLOOR (or
max_num_seqs, if that is less) and max_num_seqs + target; it grows only while GROWS_ABOVE of
it is used, since an unused limit says nothing. Waiting is the lower of two reports: a bunch that
came at once is gone by the next one (CoDel's standing queue, Nichols and Jacobson 2012). The loop
is stable while its gain is below 2 sin(pi / (2 (2d + 1))) for a delay of d periods, .45 at d = 3,
so .2 has room.
KV memory enters as a cap on slots: the requests that run now, scaled to KV_CEILING of the cache
(their mean need is the best guess for the next ones), and a cut by a tenth, at most one in
CUT_GAP_S, when the engine preempts or is above the ceiling anyway. Not as tokens to spend: split
over edges, no edge's part would ever be large enough for a long prompt.
An engine's refusal is a cut too. Silence freezes the limit, and when it lasts takes it down to
BLIND_RATIO; it never closes anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

QUEUE_TARGET_MAX = 4
ROUND_TRIP_S = 0.6  # an edge's report, a tick, a push: half a period of each on average
FINISHED_TAU_S = 10.0
GAIN_PER_S = 0.2
FLOOR_SLOTS = 8
GROWS_ABOVE = 0.9
KV_CEILING = 0.92
KV_TELLS_ABOVE = 0.8  # of the cache; below, its need is no worry and tells little
CUT = 0.9
CUT_GAP_S = 5.0
REFUSED_CUT = 0.95
REFUSED_GAP_S = 1.0
STEP_LIMIT_S = 2.0  # a report older than this says nothing of now
BLIND_AFTER_S = 10.0
BLIND_LOSS_PER_S = 0.02  # slowly: edges must not be over it before they have heard of it
BLIND_RATIO = 0.8


@dataclass(frozen=True, slots=True)
class Reading:
    """A fresh report of an engine, None where it does not say, and the attempts that edges have."""

    max_num_seqs: int
    used: int
    running: int | None = None
    waiting: int | None = None
    kv_ratio: float | None = None
    preemptions_total: int | None = None
    finished_total: int | None = None


class Limit:
    """One replica's."""

    def __init__(self, max_num_seqs: int) -> None:
        self.finished_per_s: float | None = None
        self._slots = float(max_num_seqs + QUEUE_TARGET_MAX)
        self._finished: int | None = None
        self._waiting = 0
        self._preemptions = 0
        self._read_s: float | None = None
        self._cut_s = self._refused_s = float("-inf")

    @property
    def target(self) -> float:
        """How many requests should wait in the engine."""
        if self.finished_per_s is None:
            return QUEUE_TARGET_MAX
        return min(QUEUE_TARGET_MAX, 1.0 + ROUND_TRIP_S * self.finished_per_s)

    def observe(self, reading: Reading, now_s: float, *, frozen: bool = False) -> None:
        """A new report came; what is frozen only keeps to what the engine can run."""
        elapsed_s = 0.0 if self._read_s is None else max(0.0, now_s - self._read_s)
        self._read_s = now_s
        self._count_finished(reading.finished_total, elapsed_s)
        if reading.waiting is not None:
            standing = min(reading.waiting, self._waiting)
            self._waiting = reading.waiting
            step = GAIN_PER_S * min(STEP_LIMIT_S, elapsed_s) * (self.target - standing)
            if not frozen and (step < 0.0 or reading.used >= GROWS_ABOVE * self._slots):
                self._slots += step
        self._mind_kv(reading, now_s, frozen=frozen)
        least = min(FLOOR_SLOTS, reading.max_num_seqs)
        self._slots = min(max(self._slots, least), reading.max_num_seqs + self.target)

    def refused(self, now_s: float) -> None:
        """The engine turned requests away."""
        if now_s - self._refused_s >= REFUSED_GAP_S:
            self._refused_s = now_s
            self._slots = max(1.0, min(self._slots - 1.0, REFUSED_CUT * self._slots))

    def slots(self, now_s: float) -> float:
        """What it is now."""
        blind_s = 0.0 if self._read_s is None else max(0.0, now_s - self._read_s - BLIND_AFTER_S)
        return self._slots * max(BLIND_RATIO, 1.0 - BLIND_LOSS_PER_S * blind_s)

    def _mind_kv(self, reading: Reading, now_s: float, *, frozen: bool) -> None:
        ratio, preemptions = reading.kv_ratio or 0.0, reading.preemptions_total or 0
        preempted = preemptions > self._preemptions > 0
        self._preemptions = preemptions
        if frozen:
            return
        if ratio > KV_TELLS_ABOVE and reading.running:
            self._slots = min(self._slots, self.target + reading.running * KV_CEILING / ratio)
        if (preempted or ratio > KV_CEILING) and now_s - self._cut_s >= CUT_GAP_S:
            self._cut_s = now_s
            self._slots *= CUT

    def _count_finished(self, total: int | None, elapsed_s: float) -> None:
        before, self._finished = self._finished, total
        if total is None or before is None or total < before or elapsed_s <= 0.0:
            return  # nothing to compare with, or another start of the engine
        rate = (total - before) / elapsed_s
        old = rate if self.finished_per_s is None else self.finished_per_s
        self.finished_per_s = old + (rate - old) * -math.expm1(-elapsed_s / FINISHED_TAU_S)

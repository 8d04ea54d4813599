"""How many requests one replica may have at once, over all edges: its limit, in slots.

The backlog belongs to the edges, so the limit is steered to leave QUEUE_TARGET requests waiting in
the engine: enough that a finished request's place is taken in the very next step, few enough that
nobody waits long behind them.

Rules: L += GAIN x (QUEUE_TARGET - waiting) a second, on a fresh report only, between FLOOR (or
max_num_seqs, if that is less) and max_num_seqs + QUEUE_TARGET; it grows only while GROWS_ABOVE of
it is used, since an unused limit says nothing. The loop is stable while its gain is below
2 sin(pi / (2 (2d + 1))) for a delay of d periods, .45 at d = 3, so .2 has room.
KV memory enters as a cap on slots: the requests that run now, scaled to KV_CEILING of the cache
(their mean need is the best guess for the next ones), and a cut by a tenth, at most one in
CUT_GAP_S, when the engine preempts or is above the ceiling anyway. Not as tokens to spend: split
over edges, no edge's part would ever be large enough for a long prompt.
An engine's refusal is a cut too. Silence freezes the limit, and a blind one is used at BLIND_RATIO;
it never closes anything.
"""

from __future__ import annotations

from dataclasses import dataclass

QUEUE_TARGET = 4
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


class Limit:
    """One replica's."""

    def __init__(self, max_num_seqs: int) -> None:
        self._slots = float(max_num_seqs + QUEUE_TARGET)
        self._preemptions = 0
        self._read_s: float | None = None
        self._cut_s = self._refused_s = float("-inf")

    def observe(self, reading: Reading, now_s: float) -> None:
        """A new report came."""
        before_s = now_s if self._read_s is None else self._read_s
        self._read_s = now_s
        elapsed_s = min(STEP_LIMIT_S, max(0.0, now_s - before_s))
        step = 0.0
        if reading.waiting is not None:
            step = GAIN_PER_S * elapsed_s * (QUEUE_TARGET - reading.waiting)
        if step < 0.0 or reading.used >= GROWS_ABOVE * self._slots:
            self._slots += step
        self._mind_kv(reading, now_s)
        most = reading.max_num_seqs + QUEUE_TARGET
        least = min(FLOOR_SLOTS, reading.max_num_seqs)
        self._slots = min(max(self._slots, least), most)

    def refused(self, now_s: float) -> None:
        """The engine turned requests away."""
        if now_s - self._refused_s >= REFUSED_GAP_S:
            self._refused_s = now_s
            self._slots = max(1.0, min(self._slots - 1.0, REFUSED_CUT * self._slots))

    def slots(self, now_s: float) -> float:
        """What it is now."""
        blind = self._read_s is not None and now_s - self._read_s > BLIND_AFTER_S
        return BLIND_RATIO * self._slots if blind else self._slots

    def _mind_kv(self, reading: Reading, now_s: float) -> None:
        ratio, preemptions = reading.kv_ratio or 0.0, reading.preemptions_total or 0
        preempted = preemptions > self._preemptions > 0
        self._preemptions = preemptions
        if ratio > KV_TELLS_ABOVE and reading.running:
            self._slots = min(self._slots, QUEUE_TARGET + reading.running * KV_CEILING / ratio)
        if (preempted or ratio > KV_CEILING) and now_s - self._cut_s >= CUT_GAP_S:
            self._cut_s = now_s
            self._slots *= CUT

"""What replicas can carry, and what is asked of them: the two sides of the capacity test.

Carried: C = 0.95 x the best 10 s of the last 30 minutes in which the replica was full all along,
less 1 % a minute. Learnt only while full, because what a replica without work delivers says nothing
about what it can do. A replica that was never full carries nothing that one may count on.
Asked: O = the larger of the 10-s and the 60-s rate of everything that came in, refused or not, x
the work of a mean request. What was admitted would make an ejection look safe while work is shed.
Test: a replica may go when O <= 0.9 x what the others carry; then nobody is pushed past capacity
by an ejection, and no ejection can cause the next one. The unit of work is policy/work's.
"""

from __future__ import annotations

import math
from collections import Counter, deque

from trimtab.model import BreakerState

RHO = 0.9
"""Load above this share of the capacity queues: an M/G/1 at .9 waits 10 times its service."""
TRUST = 0.95
FULL_SPAN_S = 10.0
HORIZON_MINUTES = 30
KEPT_PER_MINUTE = 0.99
RATE_SPANS_S = (10, 60)
"""The short one follows a burst, the long one is not fooled by a lull: 3 requests a second scatter
by a fifth over 10 s."""
WORK_TAU_S = 300.0
FINISHED_MIN = 5.0
"""Fewer answers say nothing about the mean."""


class Capacity:
    """What one replica was seen to deliver while full."""

    def __init__(self, prior_work_per_s: float = 0.0) -> None:
        self._prior_work_per_s = prior_work_per_s
        self._full: deque[tuple[float, float]] = deque()  # (span, work) of samples, full all along
        self._best: deque[tuple[int, float]] = deque(maxlen=HORIZON_MINUTES)  # (minute, rate)

    def observe(self, work: float, span_s: float, now_s: float, *, full: bool) -> None:
        """It delivered so much since the last sample; `full` at both of them and between."""
        if not full or span_s <= 0.0:
            self._full.clear()
            return
        self._full.append((span_s, work))
        covered_s = sum(span for span, _ in self._full)
        while covered_s - self._full[0][0] >= FULL_SPAN_S:
            covered_s -= self._full.popleft()[0]
        if covered_s >= FULL_SPAN_S:
            self._keep(sum(done for _, done in self._full) / covered_s, int(now_s // 60))

    def work_per_s(self, now_s: float) -> float:
        """What it can be counted on for; 0 when that is unknown."""
        minute = int(now_s // 60)
        faded = [
            rate * KEPT_PER_MINUTE ** (minute - at)
            for at, rate in self._best
            if minute - at < HORIZON_MINUTES
        ]
        return TRUST * max(faded) if faded else self._prior_work_per_s

    def _keep(self, rate: float, minute: int) -> None:
        if self._best and self._best[-1][0] == minute:
            rate = max(rate, self._best.pop()[1])
        self._best.append((minute, rate))


class Offered:
    """What clients ask of one pool."""

    def __init__(self) -> None:
        self._requests: Counter[int] = Counter()  # by second
        self._since_s: float | None = None
        self._work = 0.0
        self._finished = 0.0
        self._faded_s: float | None = None

    def asked(self, requests: int, now_s: float) -> None:
        """So many came in, refused ones included."""
        if self._since_s is None:
            self._since_s = now_s
        if int(now_s) not in self._requests:
            oldest_s = now_s - max(RATE_SPANS_S)
            for second in [s for s in self._requests if s <= oldest_s]:
                del self._requests[second]
        self._requests[int(now_s)] += requests

    def delivered(self, work: float, finished: int, now_s: float) -> None:
        """The pool's engines did so much and finished so many."""
        elapsed_s = 0.0 if self._faded_s is None else now_s - self._faded_s
        kept = math.exp(-max(0.0, elapsed_s) / WORK_TAU_S)
        self._faded_s = now_s
        self._work = kept * self._work + work
        self._finished = kept * self._finished + finished

    def work_per_s(self, now_s: float) -> float:
        """The load; infinite while it is unknown, so that nothing is ejected on a guess."""
        watched_s = 0.0 if self._since_s is None else now_s - self._since_s
        if watched_s < min(RATE_SPANS_S) or self._finished < FINISHED_MIN:
            return math.inf
        per_s = max(self._rate(min(span_s, watched_s), now_s) for span_s in RATE_SPANS_S)
        return per_s * self._work / self._finished

    def _rate(self, span_s: float, now_s: float) -> float:
        return sum(n for at, n in self._requests.items() if at > now_s - span_s) / span_s


def carries(
    state: BreakerState, work_per_s: float, failed_ratio: float, ramped_ratio: float
) -> float:
    """What it can be counted on for in its state: as far as it ramped, less what it fails."""
    if state is BreakerState.RAMPING:
        return work_per_s * min(1.0, ramped_ratio)
    if state in {BreakerState.HEALTHY, BreakerState.DEGRADED}:
        return work_per_s * (1.0 - failed_ratio)
    return 0.0


def admissible(carried_work_per_s: float) -> float:
    """The most that may be let in when only so much can be carried: what is above is refused."""
    return RHO * carried_work_per_s


def suffices(offered_work_per_s: float, carried_work_per_s: float) -> bool:
    """The capacity test."""
    return offered_work_per_s <= admissible(carried_work_per_s)

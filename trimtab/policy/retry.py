"""Whether a failed attempt is followed by another.

Rules: never for what the caller did; overload is a requeue at the head of the queue (keeps its age,
costs no budget, at most 3); anything else is a retry, at most 2 (1 for SOFT), each paid from a
budget. Once data has reached the caller there are only continuations (edge/core/continuation), at
most 3, paid from the same budget.
The budget is a token bucket as in Finagle's RetryBudget and gRFC A6: +0.1 for each first attempt,
+1 every 5 s, -1 for each retry. It is as deep as the largest replica has slots (at least 20), so
that one replica's death, which fails everything on it at once, can be absorbed whole, while
failures that go on are held to 10 %. A kept-alive connection that turned out closed is repeated
once for free: the request was never taken. A second one is a loss like any other: a replica that
just died leaves several behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import msgspec

from trimtab.model import Outcome
from trimtab.policy.classify import Failure, Fault, classify

RETRIES_MAX = 2
SOFT_RETRIES_MAX = 1
REQUEUES_MAX = 3
STALE_MAX = 1
CONTINUATIONS_MAX = 3
DEPOSIT_RATIO = 0.1
RESERVE_PER_S = 0.2
DEPTH_MIN = 20


class Move(Enum):
    """What becomes of the request."""

    GIVE_UP = auto()
    RETRY = auto()  # on another replica if there is one
    REQUEUE = auto()  # to the head of the queue, with its age


@dataclass(slots=True)
class Budget:
    """Retries that one edge may still spend on one pool."""

    tokens: float = DEPTH_MIN
    depth: float = DEPTH_MIN
    _updated_s: float | None = None

    def deposit(self, now_s: float) -> None:
        """A first attempt starts."""
        self._refill(now_s)
        self.tokens = min(self.depth, self.tokens + DEPOSIT_RATIO)

    def withdraw(self, now_s: float) -> bool:
        """Pay for one retry; False when there is nothing left."""
        self._refill(now_s)
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def left_ratio(self, now_s: float) -> float:
        """What is there, of all that it may hold."""
        self._refill(now_s)
        return self.tokens / self.depth

    def resize(self, slots: int) -> None:
        """The largest replica has this many slots; what is new arrives full."""
        depth = float(max(DEPTH_MIN, slots))
        self.tokens = min(depth, self.tokens + max(0.0, depth - self.depth))
        self.depth = depth

    def _refill(self, now_s: float) -> None:
        elapsed_s = 0.0 if self._updated_s is None else max(0.0, now_s - self._updated_s)
        self._updated_s = now_s
        self.tokens = min(self.depth, self.tokens + RESERVE_PER_S * elapsed_s)


class History(msgspec.Struct):
    """The attempts of one request so far."""

    retries: int = 0
    requeues: int = 0
    stale: int = 0
    continuations: int = 0
    tried: set[str] = set()

    @property
    def attempts(self) -> int:
        """Attempts that failed so far."""
        return self.retries + self.requeues + self.stale + self.continuations


def next_move(
    history: History,
    failure: Failure,
    replica: str,
    budget: Budget,
    now_s: float,
    *,
    started: bool = False,
) -> Move:
    """What to do after a failed attempt; counts it in the history.

    `started`: the caller has data, so that only a continuation can follow.
    """
    outcome = classify(failure)
    if outcome is Outcome.OVERLOAD:
        return _counted(history, "requeues", REQUEUES_MAX, Move.REQUEUE)
    if failure.fault is Fault.STALE and history.stale < STALE_MAX:
        return _counted(history, "stale", STALE_MAX, Move.REQUEUE)
    if outcome is Outcome.CLIENT or (failure.fault is Fault.SILENT and not started):
        return Move.GIVE_UP
    history.tried.add(replica)
    name, most = "retries", SOFT_RETRIES_MAX if outcome is Outcome.SOFT else RETRIES_MAX
    if started:
        name, most = "continuations", CONTINUATIONS_MAX
    if getattr(history, name) < most and not budget.withdraw(now_s):
        return Move.GIVE_UP
    return _counted(history, name, most, Move.RETRY)


def _counted(history: History, name: str, most: int, move: Move) -> Move:
    count: int = getattr(history, name)
    if count >= most:
        return Move.GIVE_UP
    setattr(history, name, count + 1)
    return move

"""The backlog of one pool at one edge: bounded, first come first served, refusing early.

Rules: a request waits here, never in an engine; it is refused at once when the queue is full, or
when at the measured drain rate it would not be served within its budget; a refusal says when to
come back: the excess wait, between 1 and 60 s, times 1 to 1.5 by dice, because clients obey it to
the millisecond and would come back as one herd. A requeued request goes to the head and keeps its
age. The drain rate is an exponentially decaying rate of requests leaving for a replica (tau 10 s).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from trimtab.policy.dice import Dice

RATE_TAU_S = 10.0
RETRY_AFTER_MIN_S = 1.0
RETRY_AFTER_MAX_S = 60.0
RATE_TRUSTED_AFTER = 8  # departures; before that the rate says more about chance than about drain


@dataclass(slots=True)
class Rate:
    """Events per second, old ones fading."""

    tau_s: float = RATE_TAU_S
    events: int = 0
    _mass: float = 0.0
    _updated_s: float = 0.0
    _started_s: float | None = None

    def add(self, now_s: float) -> None:
        """One event."""
        if self._started_s is None:
            self._started_s = self._updated_s = now_s
        self._mass = self._faded(now_s) + 1.0
        self._updated_s = max(self._updated_s, now_s)
        self.events += 1

    def per_s(self, now_s: float) -> float:
        """The rate; unbiased also when young."""
        if self._started_s is None:
            return 0.0
        age_s = max(1e-3, now_s - self._started_s)
        return self._faded(now_s) / (self.tau_s * -math.expm1(-age_s / self.tau_s))

    def _faded(self, now_s: float) -> float:
        return self._mass * math.exp(-max(0.0, now_s - self._updated_s) / self.tau_s)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A waiting request."""

    number: int
    since_s: float
    budget_s: float
    tried: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refusal:
    """No room: how many wait, how long it would take, when to come back."""

    queued: int
    wait_s: float
    retry_after_s: float


@dataclass(slots=True)
class Queue:
    """Waiting requests, oldest first."""

    limit: int
    departures: Rate = field(default_factory=Rate)
    _waiting: OrderedDict[int, Ticket] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, ticket: Ticket, now_s: float, dice: Dice) -> Refusal | None:
        """Take a new request in, or say why not."""
        wait_s = self.wait_s(now_s)
        if len(self._waiting) >= self.limit or wait_s > ticket.budget_s:
            return self.refusal(now_s, ticket.budget_s, dice)
        self._waiting[ticket.number] = ticket
        return None

    def requeue(self, ticket: Ticket) -> None:
        """Take one back at the head; it was admitted before, so the limit does not apply."""
        self._waiting[ticket.number] = ticket
        self._waiting.move_to_end(ticket.number, last=False)

    def remove(self, number: int) -> None:
        """The request left, for whatever reason."""
        self._waiting.pop(number, None)

    def depart(self, number: int, now_s: float) -> None:
        """The request goes to a replica."""
        self.remove(number)
        self.departures.add(now_s)

    def head(self, count: int) -> list[Ticket]:
        """The oldest requests, at most `count`."""
        return [ticket for ticket, _ in zip(self._waiting.values(), range(count), strict=False)]

    def wait_s(self, now_s: float) -> float:
        """How long a new request would wait; 0 while nothing waits or the rate is unknown."""
        if not self._waiting or self.departures.events < RATE_TRUSTED_AFTER:
            return 0.0
        return len(self._waiting) / max(1e-3, self.departures.per_s(now_s))

    def refusal(self, now_s: float, budget_s: float, dice: Dice) -> Refusal:
        """What to tell a request that finds no room."""
        wait_s = self.wait_s(now_s)
        excess_s = min(max(wait_s - budget_s + 1.0, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)
        return Refusal(len(self._waiting), wait_s, excess_s * (1.0 + 0.5 * dice.random()))

    def oldest_s(self, now_s: float) -> float:
        """Age of the oldest waiting request; 0 if none."""
        return max((now_s - t.since_s for t in self.head(1)), default=0.0)

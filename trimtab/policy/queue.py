"""The backlog of one pool at one edge: bounded, by urgency, fair among tenants, refusing early.

Rules. A request waits here, never in an engine. The more urgent go first, with a guarantee for the
others (`urgency`); then tenants take turns by work (`fairness`), each first come first served; a
requeued request goes to the head of its tenant's line and keeps its age.

A new request is refused at once when its tenant has its part of the room, or when its predicted
wait is beyond its budget (`calm`): the work in the whole pool that goes before it (`elsewhere`)
over the pool's work per second. Nobody waits beyond the long budget, nor beyond PATIENCE_RATIO of
what the caller allows: the rest is for the answer's beginning. What has waited in vain is not
dispatched, so that no prompt is computed for a caller who has left.
A refusal says when to come back: the excess wait, 1 to 60 s, times 1 to 1.5 by dice, because
clients obey it to the millisecond and would come back as one herd.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from trimtab.model import Urgency
from trimtab.policy.calm import Budgets
from trimtab.policy.dice import Dice
from trimtab.policy.elsewhere import Knowledge
from trimtab.policy.fairness import Shares
from trimtab.policy.urgency import BUDGETS_S, GUARANTEE, known

RETRY_AFTER_MIN_S = 1.0
RETRY_AFTER_MAX_S = 60.0
PATIENCE_RATIO = 0.75
ROOM_FACTOR = 8  # a tenant may have so many times the free room: alone 8/9 of all, two 8/17 each
DEPARTED_MEMORY = 64.0  # departures: how urgent they were lately


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """A request that wants to run. `work` is its estimate, `patience_s` the caller's."""

    number: int
    since_s: float
    patience_s: float = math.inf
    work: float = 0.0
    prompt_tokens: int = 0
    tenant: str = ""
    urgency: Urgency = Urgency.DEFAULT
    tried: frozenset[str] = frozenset()
    affinity: bytes = b""
    """The key under which to look for its home; none if empty."""
    adapter: str = ""
    """It needs a replica that has this adapter; any will do if empty."""
    only: str = ""
    """The one replica that can serve it; empty if any can."""
    cut_s: float = -math.inf
    """When its answer was cut in the middle: it waits from then on, but keeps its age."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What not every replica can do for it, by name."""
        return tuple(filter(None, (self.adapter, self.only)))

    @property
    def was_cut(self) -> bool:
        """Whether a caller has the beginning of its answer."""
        return self.cut_s > -math.inf


@dataclass(frozen=True, slots=True)
class Refusal:
    """No room: how many wait, how long it would take, when to come back.

    The reason: queue_full (its tenant's part of it), wait (it would be too long), expired (it was).
    """

    queued: int
    wait_s: float
    retry_after_s: float
    reason: str = "queue_full"


class Forecast(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a new request met: how long it would wait, how long it might."""

    wait_s: float
    budget_s: float


@dataclass(slots=True)
class Line:
    """One tenant's waiting requests of one urgency, oldest first."""

    tickets: OrderedDict[int, Ticket] = field(default_factory=OrderedDict)
    work: float = 0.0


@dataclass(slots=True)
class Queue:
    """Waiting requests."""

    limit: int
    budgets: Budgets = field(default_factory=Budgets)
    pool: Knowledge = field(default_factory=Knowledge)
    shares: Shares = field(default_factory=Shares)
    charges: dict[tuple[Urgency, str], float] = field(default_factory=dict)
    """Work charged and not yet reported; whoever reports it takes it out."""
    forecast: Forecast | None = None
    """Of the last request offered."""
    part_of: Callable[[str], float] = lambda _adapter: 1.0
    """The part of the pool's room that is on replicas with an adapter."""
    _waiting: dict[int, Ticket] = field(default_factory=dict)
    _lines: dict[Urgency, dict[str, Line]] = field(
        default_factory=lambda: {urgency: {} for urgency in BUDGETS_S}
    )
    _debts: dict[Urgency, float] = field(default_factory=lambda: dict.fromkeys(BUDGETS_S, 0.0))
    _departed: dict[Urgency, float] = field(default_factory=lambda: dict.fromkeys(BUDGETS_S, 0.0))

    def __len__(self) -> int:
        return len(self._waiting)

    # In

    def offer(
        self, ticket: Ticket, now_s: float, dice: Dice, room: Callable[[], bool]
    ) -> Refusal | None:
        """Take a new request in, or say why not; `room`: whether a replica could run it at once."""
        wait_s = self.wait_s(ticket, now_s)
        budget_s = self._budget_s(ticket, wait_s, now_s)
        self.forecast = Forecast(wait_s, budget_s)
        line = self._lines[known(ticket.urgency)].get(ticket.tenant)
        part = ROOM_FACTOR * (self.limit - len(self._waiting))
        late = wait_s > budget_s and (self._is_preceded(ticket) or not room())
        if late or (len(line.tickets) if line else 0) >= part:
            return self._refusal(wait_s, budget_s, dice, "wait" if late else "queue_full")
        self._put(ticket, first=False)
        self.pool.admitted(ticket.tenant, ticket.urgency, ticket.work)
        return None

    def requeue(self, ticket: Ticket) -> None:
        """Take one back at the head; it was admitted before, so the limit does not apply."""
        self._put(ticket, first=True)

    def pass_by(self, ticket: Ticket, now_s: float) -> bool:
        """Where nobody waits, take in and charge for one that runs at once; False: `offer` it.

        The same as `offer` and `depart`, at a third of their time.
        """
        if self._waiting or self.limit < 1:
            return False
        wait_s = self.wait_s(ticket, now_s)
        self.forecast = Forecast(wait_s, self._budget_s(ticket, wait_s, now_s))
        tenant, urgency = ticket.tenant, known(ticket.urgency)
        self.shares.pass_by(tenant)
        self.pool.admitted(tenant, ticket.urgency, ticket.work)
        self._debts[urgency] = 0.0
        self._leave(ticket, urgency)
        return True

    # Out

    def head(self, count: int, now_s: float, free: Container[str] = frozenset()) -> list[Ticket]:
        """Whose turn it is, the first one first, at most `count`; none whose time is over.

        Whoever needs another adapter or replica than these is passed over, and keeps his place.
        """
        fit = (t for t in self._order() if all(need in free for need in t.needs))
        return list(islice((t for t in fit if now_s < self.gives_up_s(t)), count))

    def remove(self, number: int) -> None:
        """The request left, for whatever reason."""
        ticket = self._waiting.pop(number, None)
        if ticket is None:
            return
        lines = self._lines[known(ticket.urgency)]
        line = lines[ticket.tenant]
        del line.tickets[number]
        line.work -= ticket.work
        if not line.tickets:
            del lines[ticket.tenant]
            self.shares.left(ticket.tenant)
        if not lines:
            self._debts[known(ticket.urgency)] = 0.0

    def depart(self, ticket: Ticket) -> None:
        """The request goes to a replica and is charged for."""
        urgency = known(ticket.urgency)
        self._debts[urgency] = max(0.0, self._debts[urgency] - 1.0)
        self.remove(ticket.number)
        for other, lines in self._lines.items():
            if lines and other > urgency:
                self._debts[other] += GUARANTEE
        self._leave(ticket, urgency)

    def _leave(self, ticket: Ticket, urgency: Urgency) -> None:
        self._departed[urgency] += 1.0
        if sum(self._departed.values()) > DEPARTED_MEMORY:
            self._departed = {other: number / 2 for other, number in self._departed.items()}
        self._charge(ticket, ticket.work)
        self.pool.charged(ticket.work)

    def settle(self, ticket: Ticket, done: float) -> None:
        """An attempt at it ended after so much work."""
        self._charge(ticket, done - ticket.work)

    # What is known

    def wait_s(self, ticket: Ticket, now_s: float) -> float:
        """How long a new request like this would wait; 0 while the pace is unknown."""
        urgency = known(ticket.urgency)
        pace = self.pool.work_per_s(now_s) or 0.0
        pace *= self._part(urgency) if pace else 0.0
        if not pace:
            return 0.0
        before = 0.0
        ahead: dict[str, float] = {ticket.tenant: 0.0}
        for other, tenant, amount in self._backlog(now_s):
            if other < urgency:
                before += amount
            elif other is urgency:
                ahead[tenant] = ahead.get(tenant, 0.0) + amount
        own = ahead[ticket.tenant]
        before += sum(min(amount, own) for amount in ahead.values())  # they take turns with it
        return max(before / pace, self._line_s(ticket.adapter, pace))

    def gives_up_s(self, ticket: Ticket) -> float:
        """When a waiting request is refused after all."""
        longest_s = self.budgets.longest_s(ticket.urgency)
        waits_since_s = max(ticket.since_s, ticket.cut_s)
        return waits_since_s + min(longest_s, PATIENCE_RATIO * ticket.patience_s)

    def refusal(self, ticket: Ticket, now_s: float, dice: Dice) -> Refusal:
        """What to tell a request that waited in vain."""
        wait_s = self.wait_s(ticket, now_s)
        budget_s = self._budget_s(ticket, wait_s, now_s)
        return self._refusal(wait_s, budget_s, dice, "expired")

    def lines(self) -> Iterator[tuple[Urgency, str, Line]]:
        """Everybody that waits, the urgent first."""
        for urgency, lines in self._lines.items():
            for tenant, line in lines.items():
                yield urgency, tenant, line

    # Inside

    def _put(self, ticket: Ticket, *, first: bool) -> None:
        lines = self._lines[known(ticket.urgency)]
        if ticket.tenant not in lines:
            self.shares.lift(ticket.tenant, lines)
            lines[ticket.tenant] = Line()
        line = lines[ticket.tenant]
        line.tickets[ticket.number] = self._waiting[ticket.number] = ticket
        line.tickets.move_to_end(ticket.number, last=not first)
        line.work += ticket.work

    def _line_s(self, adapter: str, pace: float) -> float:
        """How long those who wait for an adapter take those replicas that have it."""
        if not adapter:
            return 0.0
        work = sum(t.work for t in self._waiting.values() if t.adapter == adapter)
        part = self.part_of(adapter)
        return work / (pace * part) if part > 0.0 else 0.0

    def _is_preceded(self, ticket: Ticket) -> bool:
        """Whether somebody waits who may take what this one could run on."""
        return any(not t.adapter or t.adapter == ticket.adapter for t in self._waiting.values())

    def _charge(self, ticket: Ticket, amount: float) -> None:
        self.shares.charge(ticket.tenant, amount)
        who = (known(ticket.urgency), ticket.tenant)
        self.charges[who] = self.charges.get(who, 0.0) + amount

    def _order(self) -> Iterator[Ticket]:
        urgencies = [urgency for urgency, lines in self._lines.items() if lines]
        if len(urgencies) > 1:
            urgencies.sort(key=lambda urgency: (self._debts[urgency] < 1.0, urgency))
        for urgency in urgencies:
            lines = self._lines[urgency]
            for tenant in self.shares.order(lines):
                yield from lines[tenant].tickets.values()

    def _budget_s(self, ticket: Ticket, wait_s: float, now_s: float) -> float:
        budget_s = self.budgets.now(ticket.urgency, ticket.tenant, wait_s, now_s)
        return min(budget_s, PATIENCE_RATIO * ticket.patience_s)

    def _backlog(self, now_s: float) -> Iterator[tuple[Urgency, str, float]]:
        for urgency, tenant, line in self.lines():
            yield urgency, tenant, line.work
        yield from self.pool.waiting(now_s)

    def _part(self, urgency: Urgency) -> float:
        """Share of the departures that the more urgent leave to this one."""
        total = higher = 0.0
        for other, number in self._departed.items():
            total += number
            if other < urgency:
                higher += number
        return max(GUARANTEE, 1.0 - higher / total) if total else 1.0

    def _refusal(self, wait_s: float, budget_s: float, dice: Dice, reason: str) -> Refusal:
        excess_s = min(max(wait_s - budget_s + 1.0, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)
        retry_after_s = excess_s * (1.0 + 0.5 * dice.random())
        return Refusal(len(self._waiting), wait_s, retry_after_s, reason)

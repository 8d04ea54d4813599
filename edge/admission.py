"""Turns the pure accounting of core/dispatch into waiting coroutines.

Rules: every placement ends in exactly one release, also when the caller is cancelled at any await;
whatever may free room (a release, a push, a doubt that expired) pumps the queues.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import msgspec

from edge.core import models, problems
from edge.core.decisions import Notes
from edge.core.dispatch import Dispatch, Placement
from edge.core.problems import Problem
from edge.core.table import RoutingTable
from trimtab.model import Credits, EdgeUpdate, Outcome, Route, Serving
from trimtab.policy.queue import Refusal, Ticket
from trimtab.runtime import clock

BORROWED_MAX = 128  # cheap requests at once: each has a body in memory and a connection
PUMP_PERIOD_S = 0.25  # doubts expire by themselves; nothing else would tell the queues


class AdapterGoneError(Exception):
    """No replica has the adapter any more for which the request waited."""


class RefusedError(Exception):
    """The request can't be served; carries what to answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


class Permit(msgspec.Struct, eq=False):
    """The right to run one attempt on one replica."""

    placement: Placement
    tokens: int = 0
    """Of the answer, so far."""
    prompt_tokens: int = 0
    """Of the prompt, where the engine has said so."""
    cached_tokens: int = 0
    """Of these, found in its cache."""
    reasoning_tokens: int = 0
    """Of the answer's, those that were thought."""
    counted: int = 0
    """Of these, told to dispatch."""
    refused: bool = False
    """Nothing listened on the replica's port."""
    lost: bool = False
    is_hedge: bool = False
    """It is the second of its request."""
    outrun: bool = False
    """Its request is answered by another attempt."""
    began: bool = False
    """Its first data has come; known where there may be another attempt."""
    whole: bool = False
    """The caller of a stream has all of it: what comes after matters to nobody."""
    borrowed: bool = False
    """Takes no slot: nothing is accounted."""
    speaking: bool = False
    """Its caller still has something to say, and the replica waits for that."""
    asked_s: float = 0.0
    """When he had said it all; 0: at its start."""
    on_began: Callable[[], None] = lambda: None
    """Called when the first data of a stream has come."""
    answer_id: str = ""
    """What the replica is to call its answer, where others may ask for it later."""
    on_lost: Callable[[], None] | None = None

    @property
    def route(self) -> Route:
        """The replica."""
        return self.placement.route

    @property
    def served_as(self) -> str:
        """The name of the model there."""
        return self.placement.ticket.adapter or self.route.served_as

    @property
    def source(self) -> tuple[str, str]:
        """Pool and replica: where its tokens come from."""
        return self.placement.pool, self.route.replica

    def lose(self) -> None:
        """The replica does no useful work: interrupt the attempt."""
        self.lost = True
        if self.on_lost is not None:
            self.on_lost()


class Admission:
    """Where requests wait for a replica."""

    def __init__(self, table: RoutingTable, dispatch: Dispatch) -> None:
        self._table = table
        self._dispatch = dispatch
        self._waiting: dict[int, asyncio.Future[Placement]] = {}
        self._running: defaultdict[str, set[Permit]] = defaultdict(set)
        self._finished: Counter[tuple[str, str]] = Counter()  # tokens of attempts that are over
        self._borrowed = 0
        self.on_wait: Callable[[], None] = lambda: None
        """Called when a request must wait where none did."""

    def at_once(self, pool: str, ticket: Ticket, notes: Notes) -> Permit | None:
        """The straight way of a new request, open most of the time; None: `acquire`."""
        placement = self._dispatch.admit(pool, ticket, clock.now_s())
        if placement is None:
            return None
        notes.forecast = self._dispatch.pool(pool).queue.forecast
        return self._permit(placement)

    async def acquire(
        self, pool: str, ticket: Ticket, notes: Notes, *, again: bool = False
    ) -> Permit:
        """Wait for a replica; `again` for a request that was admitted before.

        Raises RefusedError when there is no room, now or in time, AdapterGoneError when there never
        will be. One whose answer was cut waits even where no replica is open.
        """
        now_s = clock.now_s()
        if not ticket.was_cut and not self._dispatch.has_open(pool, ticket.adapter):
            raise RefusedError(self._no_replica(pool, ticket))
        if again:
            self._dispatch.requeue(pool, ticket)
        else:
            refusal = self._dispatch.offer(pool, ticket, now_s)
            notes.forecast = self._dispatch.pool(pool).queue.forecast
            if refusal:
                raise RefusedError(problems.overloaded(refusal, ticket.patience_s))
        return self._permit(await self._place(pool, ticket, now_s))

    def beside(self, permit: Permit) -> Permit | None:
        """A second permit for the same request, on another replica, if one is idle."""
        placement = self._dispatch.beside(permit.placement, clock.now_s())
        return self._permit(placement, is_hedge=True) if placement else None

    def borrow(self, pool: str, ticket: Ticket) -> Permit:
        """A replica for a cheap request, without a wait and without a slot.

        Raises RefusedError when there is none, or too many ask at once.
        """
        if self._borrowed >= BORROWED_MAX:
            raise RefusedError(problems.overloaded(Refusal(self._borrowed, 0.0, 1.0)))
        placement = self._dispatch.borrow(pool, ticket, clock.now_s())
        if placement is None:
            raise RefusedError(self._no_replica(pool, ticket))
        self._borrowed += 1
        permit = Permit(placement, borrowed=True)
        self._running[permit.route.replica].add(permit)
        return permit

    def release(self, permit: Permit, outcome: Outcome) -> None:
        """The attempt ended so."""
        self._running[permit.route.replica].discard(permit)
        if permit.borrowed:
            self._borrowed -= 1
            return
        self._finished[permit.source] += permit.tokens - permit.counted
        now_s, refused = clock.now_s(), permit.refused
        self._dispatch.finish(permit.placement, outcome, now_s, permit.tokens, refused=refused)
        if self._waiting:
            self.pump()

    def apply(self, update: EdgeUpdate) -> str:
        """Take a push; the reason when it is refused. Attempts on lost replicas are interrupted."""
        refusal = self._table.apply(update)
        if not refusal:
            self._dispatch.resize()
            if isinstance(update.body, Credits):
                self._dispatch.hear(clock.now_s())
            else:
                self._refuse_orphans()
            for route in self._table.snapshot.routes:
                if route.serving is Serving.LOST:
                    for permit in list(self._running[route.replica]):
                        permit.lose()
            self.pump()
        return refusal

    def pump(self) -> None:
        """Hand free room to waiting requests."""
        now_s = clock.now_s()
        for placement in self._dispatch.place(now_s):
            future = self._waiting[placement.ticket.number]
            if future.done():  # its caller has just left, but did not run since
                self._dispatch.finish(placement, Outcome.CLIENT, now_s)
            else:
                future.set_result(placement)

    def running(self) -> Iterator[Permit]:
        """All attempts under way."""
        return chain.from_iterable(self._running.values())

    async def pump_forever(self) -> None:
        """Notice doubts that expired, and count what streams."""
        counted_s = clock.now_s()
        while True:
            await asyncio.sleep(PUMP_PERIOD_S)
            now_s = clock.now_s()
            self._count_tokens(now_s - counted_s)
            counted_s = now_s
            if self._waiting:
                self.pump()

    def _count_tokens(self, elapsed_s: float) -> None:
        tokens, self._finished = self._finished, Counter()
        asked_s: dict[str, float] = {}
        for replica, permits in self._running.items():
            for permit in permits:
                if permit.borrowed:
                    continue
                if not permit.tokens and not permit.speaking:
                    since_s = permit.asked_s or permit.placement.started_s
                    asked_s[replica] = min(since_s, asked_s.get(replica, since_s))
                tokens[permit.source] += permit.tokens - permit.counted
                permit.counted = permit.tokens
        self._dispatch.streamed(tokens, elapsed_s, clock.now_s())
        self._dispatch.wait(asked_s)

    def _permit(self, placement: Placement, *, is_hedge: bool = False) -> Permit:
        permit = Permit(placement, is_hedge=is_hedge)
        permit.on_began = partial(self._began, placement)
        self._running[permit.route.replica].add(permit)
        return permit

    def _began(self, placement: Placement) -> None:
        self._dispatch.began(placement, clock.now_s())

    async def _place(self, pool: str, ticket: Ticket, now_s: float) -> Placement:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Placement] = loop.create_future()
        self._waiting[ticket.number] = future
        self.pump()
        if future.done():
            del self._waiting[ticket.number]
            return future.result()
        within_s = self._dispatch.gives_up_s(pool, ticket) - now_s
        timer = loop.call_later(max(0.0, within_s), self._expire, pool, ticket)
        if len(self._waiting) == 1:
            self.on_wait()
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._dispatch.withdraw(pool, ticket.number)
            elif future.exception() is None:  # placed, but the caller has left meanwhile
                self._dispatch.finish(future.result(), Outcome.CLIENT, clock.now_s())
            raise
        finally:
            timer.cancel()
            del self._waiting[ticket.number]

    def _refuse_orphans(self) -> None:
        for pool, ticket in list(self._dispatch.orphans()):
            self._dispatch.withdraw(pool, ticket.number)
            future = self._waiting[ticket.number]
            if not future.done():
                future.set_exception(AdapterGoneError())

    def _no_replica(self, pool: str, ticket: Ticket) -> Problem:
        routes = [r for r in self._table.routes(pool) if models.has(r, ticket.adapter)]
        return problems.no_replica(ticket.adapter or pool, len(routes))

    def _expire(self, pool: str, ticket: Ticket) -> None:
        future = self._waiting[ticket.number]
        if future.done():
            return
        refusal = self._dispatch.expire(pool, ticket, clock.now_s())
        if self._dispatch.has_open(pool, ticket.adapter):
            problem = problems.overloaded(refusal, ticket.patience_s)
        else:
            problem = self._no_replica(pool, ticket)
        future.set_exception(RefusedError(problem))

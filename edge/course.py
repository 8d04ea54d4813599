"""The course of one request over the replicas: queue, attempts, failover, answer.

A stream whose replica is lost in the middle goes on on another one where that is exact
(core/continuation); its caller then waits in the queue as any other, and sees comments.

Rules: a caller that leaves cancels whatever the course waits for; each permit is released exactly
once with the attempt's outcome.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from edge import attempt
from edge.admission import AdapterGoneError, Admission, Permit, RefusedError
from edge.alarm import RangError
from edge.attempt import Errand, Rejected, Result, Whole
from edge.client import ClientStream, Keeper
from edge.core import continuation, headers, makers, models, problems, sse, surface
from edge.core.decisions import Attempt, Notes
from edge.core.dispatch import Dispatch, with_tried
from edge.core.headers import Journey
from edge.core.models import Target
from edge.core.openai import Call
from edge.core.problems import Problem
from edge.core.surface import Cost
from edge.core.table import RoutingTable
from edge.failures import Failures
from edge.fallback import SERVED_OUTSIDE
from edge.hedging import Hedger
from edge.http.response import Response
from edge.metrics import EdgeMetrics
from edge.quarantine import Quarantine
from edge.ways import Ways
from trimtab.model import ApiKey, Outcome, Pool
from trimtab.policy.classify import Failure, Fault, classify
from trimtab.policy.deadline import Deadline
from trimtab.policy.queue import Ticket
from trimtab.policy.retry import REQUEUES_MAX, History, Move, next_move
from trimtab.runtime import clock

GONE = Failure(Fault.CLIENT_GONE)
"""What a cancelled caller leaves behind."""
OUTRUN = Failure(Fault.OUTRUN)
FINE = frozenset({Outcome.OK, Outcome.CLIENT})


class Passing(Protocol):
    """What passes between a caller and a replica piece by piece."""

    @property
    def can_retry(self) -> bool:
        """Whether another replica can be tried."""

    @property
    def response(self) -> Response | None:
        """The whole answer, if it was made on the way."""

    async def attempt(self, errand: Errand) -> Result:
        """One attempt, as in edge/attempt."""


class Job(msgspec.Struct, eq=False):
    """One request on its way."""

    call: Call
    target: Target
    key: ApiKey
    ticket: Ticket
    idle_s: float
    stream: ClientStream | None
    journey: Journey
    caller: Mapping[str, str]
    """Its headers."""
    deadline: Deadline | None
    """None: it may take for ever."""
    history: History = msgspec.field(default_factory=History)
    notes: Notes = msgspec.field(default_factory=Notes)
    cut: Failure | None = None
    """What last broke its stream."""
    passing: Passing | None = None
    """What it is, if it is no JSON."""

    @property
    def pool(self) -> Pool:
        """Where it runs."""
        return self.target.pool

    @property
    def may_leave(self) -> bool:
        """Whether its answer may come from outside of the fleet, where nobody has its adapters."""
        return self.key.fallback and not self.target.adapter

    @property
    def due_s(self) -> float:
        """When its answer must be whole."""
        return self.ticket.since_s + (self.deadline.within_s if self.deadline else math.inf)

    def left(self, now_s: float) -> Failure:
        """What it leaves behind when it ends in the middle of an attempt."""
        return Failure(Fault.LATE) if now_s >= self.due_s else GONE

    @property
    def request_id(self) -> str:
        """What its caller knows it by."""
        return self.journey.request_id

    @property
    def started(self) -> bool:
        """Whether the caller of a stream has data."""
        return self.stream is not None and self.stream.started


class BrokenStreamError(Exception):
    """The stream ended in an error event; carries it, and the response for the server."""

    def __init__(self, response: Response, problem: Problem) -> None:
        super().__init__(problem.code)
        self.response = response
        self.problem = problem


class Course:
    """Takes requests to replicas until they are answered."""

    def __init__(
        self,
        table: RoutingTable,
        dispatch: Dispatch,
        admission: Admission,
        ways: Ways,
        metrics: EdgeMetrics,
    ) -> None:
        self._table = table
        self._dispatch = dispatch
        self._admission = admission
        self._upstream = ways.engines
        self._metrics = metrics
        self._fallbacks = ways.outside
        self._hedger = Hedger(table, admission, metrics)
        self._failures = Failures()
        self._quarantine = Quarantine(dispatch)
        self.keeper = Keeper()

    async def run(self, job: Job) -> Response:
        """Answer it; raises RefusedError while an error status is still possible."""
        now_s, policy = clock.now_s(), self._table.policy
        if job.stream is not None:
            self.keeper.watch(job.stream, now_s + policy.head_hold_ms / 1000)
        try:
            with self._upstream.watch.alarm(max(0.0, job.due_s - now_s)):
                try:
                    return await self._follow(job)
                except RefusedError as error:
                    return self._answer(job, await self._fallbacks.answer(job, error))
        except RefusedError as error:
            raise _refusal(job, error.problem) from error
        except RangError:
            if job.deadline is None:
                raise
            problem = problems.too_late(job.deadline, started=job.started)
            raise _refusal(job, problem) from None
        finally:
            if job.stream is not None:
                self.keeper.release(job.stream)

    async def _follow(self, job: Job) -> Response:
        while True:
            result, replica = await self._attempt(job)
            if isinstance(result, Whole):
                return self._answer(job, result)
            if isinstance(result, Rejected):
                if not job.target.adapter or result.failure.status != 404:
                    return self._pass_on(job, result)
                if not self._is_elsewhere(job, replica):
                    raise RefusedError(self._gone(job))
                continue
            if not self._goes_on(job, result, replica):
                return self._give_up(job, result)
            if job.cut is not None and job.stream is not None and job.stream.is_whole(job.call):
                await job.stream.send(sse.DONE)
                return self._answer(job, Whole())

    async def _attempt(self, job: Job) -> tuple[Result, str]:
        asked_s = clock.now_s()
        if problem := self._poison(job):
            raise RefusedError(problem)
        permit = self._at_once(job) or await self._admit(job)
        placement = permit.placement
        job.journey.placed(permit.route.replica, placement.started_s - asked_s)
        counts = self._metrics.model(job.pool.name)
        if placement.at_home is not None:
            counts.home[placement.at_home].inc()
        if not permit.borrowed:
            counts.queue_wait.observe(placement.started_s - job.ticket.since_s)
        if problem := self._poison(job):  # another copy broke replicas while this one waited
            self._admission.release(permit, Outcome.CLIENT)
            raise RefusedError(problem)
        if job.call.path == surface.RESPONSES:
            who = (job.ticket.tenant, permit.route.replica, job.call.answers_as)
            permit.answer_id = makers.new_id(secrets.token_bytes(makers.LOT_BYTES), *who)
        if job.stream is not None and job.pool.hedge:
            return await self._hedger.run(job, permit, partial(self._run, job))
        return await self._run(job, permit)

    async def _run(self, job: Job, permit: Permit) -> tuple[Result, str]:
        failure: Failure | None = GONE
        try:
            if job.cut is not None and job.stream is not None:
                result = await self._go_on(job, permit, job.stream)
            else:
                result = await self._send(job, permit, job.call)
            failure = attempt.failure(result)
            permit.refused = failure is not None and failure.fault is Fault.REFUSED
            # a first answer that breaks in the middle is blamed on nobody: many may run there
            innocent = permit.borrowed or (job.started and job.cut is None)
            if failure is not None and not innocent and job.passing is None:
                self._quarantine.blame(permit.placement, failure, job.call, job.request_id)
            return result, permit.route.replica
        finally:
            if failure is GONE:
                failure = OUTRUN if permit.outrun else job.left(clock.now_s())
            failure = None if permit.whole else failure  # who leaves now has all
            outcome = classify(failure) if failure else Outcome.OK
            self._admission.release(permit, outcome)
            self._metrics.attempted(permit.route.replica, failure, outcome)
            self._note(job, permit, outcome, failure)

    def _at_once(self, job: Job) -> Permit | None:
        if job.history.attempts or job.call.entry.cost is Cost.CHEAP:
            return None
        return self._admission.at_once(job.pool.name, job.ticket, job.notes)

    async def _admit(self, job: Job) -> Permit:
        pool, again = job.pool.name, job.history.attempts > 0
        try:
            if job.call.entry.cost is Cost.CHEAP:
                return self._admission.borrow(pool, job.ticket)
            return await self._admission.acquire(pool, job.ticket, job.notes, again=again)
        except (RefusedError, AdapterGoneError) as error:
            problem = error.problem if isinstance(error, RefusedError) else self._gone(job)
            problem = problem if job.cut is None else _cut_short(job, job.cut)
            raise RefusedError(problem) from error

    def _note(self, job: Job, permit: Permit, outcome: Outcome, failure: Failure | None) -> None:
        rest = job.stream.rest if job.stream else None
        ended = Attempt(
            replica=permit.route.replica,
            picked_s=permit.placement.started_s,
            ended_s=clock.now_s(),
            outcome=outcome,
            fault=failure.fault.name.lower() if failure else "",
            status=failure.status if failure else 200,
            among=permit.placement.among,
            at_home=permit.placement.at_home,
            continued_at_tokens=rest.tokens if rest else None,
            tokens=permit.tokens,
            prompt_tokens=permit.prompt_tokens,
            cached_tokens=permit.cached_tokens,
            reasoning_tokens=permit.reasoning_tokens,
            is_hedge=permit.is_hedge,
        )
        job.notes.attempts.append(ended)
        if outcome not in FINE:
            self._failures.tell(job.request_id, ended)

    def _send(self, job: Job, permit: Permit, call: Call) -> Awaitable[Result]:
        journey = job.journey
        to_engine = headers.to_engine(job.caller, job.request_id, journey.attempts, journey.trace)
        errand = Errand(permit, call, to_engine, job.stream, job.idle_s)
        if job.passing is not None:
            return job.passing.attempt(errand)
        return attempt.run(self._upstream, errand)

    async def _go_on(self, job: Job, permit: Permit, stream: ClientStream) -> Result:
        """Ask for the rest of an answer that was cut."""
        if stream.transcript is None:
            return await self._send(job, permit, job.call)
        text = stream.transcript.text
        tokens = await attempt.count_tokens(self._upstream, permit, text) if text else 0
        rest = stream.rest = continuation.rest(job.call, stream.transcript, tokens)
        if rest.finish:
            await stream.send(rest.finish)
        if not rest.body:
            await stream.send(sse.DONE)
            return Whole()
        return await self._send(job, permit, msgspec.structs.replace(job.call, body=rest.body))

    def _poison(self, job: Job) -> Problem | None:
        if job.passing is not None or self._quarantine.is_empty:
            return None  # who has it only in part can't know it again
        return self._quarantine.refusal(job.ticket.tenant, job.call)

    def _goes_on(self, job: Job, failure: Failure, replica: str) -> bool:
        started = job.started
        if job.passing is not None and not job.passing.can_retry:
            return False
        if started and not self._can_continue(job, failure):
            return False
        budget, now_s = self._dispatch.pool(job.pool.name).budget, clock.now_s()
        blocked = self._poison(job) is not None
        if blocked or (
            next_move(job.history, failure, replica, budget, now_s, started=started) is Move.GIVE_UP
        ):
            if started:
                self._failed_over(job, "given_up", "quarantined" if blocked else "given_up")
            return False
        job.ticket = with_tried(job.ticket, job.history.tried)
        if started:
            self._resume(job, failure, now_s)
        return True

    def _resume(self, job: Job, failure: Failure, now_s: float) -> None:
        job.cut = failure
        if classify(failure) is not Outcome.OVERLOAD or not job.ticket.was_cut:
            job.ticket = msgspec.structs.replace(job.ticket, cut_s=now_s)
            self._failed_over(job, "continued", "")
        if job.stream is not None:
            job.stream.pause()
            self.keeper.watch(job.stream, now_s)

    def _can_continue(self, job: Job, failure: Failure) -> bool:
        if job.stream is None or classify(failure) is Outcome.CLIENT:
            return False
        if job.stream.transcript is None:
            off = job.pool.no_failover
            self._failed_over(job, "off" if off else "inexact", "off" if off else "dialect")
            return False
        if why := continuation.flaw(job.call, job.stream.transcript):
            self._failed_over(job, "inexact", why)
        return not why

    def _failed_over(self, job: Job, result: str, why: str) -> None:
        self._metrics.failovers.labels(job.pool.name, result).inc()
        job.notes.not_continued = why

    def _answer(self, job: Job, whole: Whole) -> Response:
        if job.stream is not None:
            return job.stream.finish()
        if job.passing is not None and job.passing.response is not None:
            return job.passing.response
        kind = {"content-type": whole.content_type}
        marks = SERVED_OUTSIDE if job.notes.outside else {}
        return Response(200, whole.body, {**kind, **marks})

    def _gone(self, job: Job) -> Problem:
        return models.unknown(self._table.targets, job.key, job.target.name)

    def _is_elsewhere(self, job: Job, replica: str) -> bool:
        """Whether others may have the adapter that this replica turned out to have no more."""
        job.history.tried.add(replica)
        job.history.requeues += 1
        job.ticket = with_tried(job.ticket, job.history.tried)
        routes = self._table.routes(job.pool.name)
        having = {route.replica for route in routes if models.has(route, job.target.adapter)}
        return job.history.requeues <= REQUEUES_MAX and not having <= job.history.tried

    def _pass_on(self, job: Job, rejected: Rejected) -> Response:
        if job.stream is not None and job.stream.committed:
            return self._give_up(job, job.cut or rejected.failure)
        if rejected.body == problems.UNROUTED:
            raise RefusedError(problems.not_by_the_model(job.target.name, job.call.path))
        kind, status = {"content-type": rejected.content_type}, rejected.failure.status
        body = problems.named(rejected.body)
        return Response(status, body, kind)

    def _give_up(self, job: Job, failure: Failure) -> Response:
        if failure.fault is Fault.CLIENT_GONE:
            raise ConnectionResetError("the caller stopped reading")
        raise RefusedError(_cut_short(job, failure))


def _cut_short(job: Job, failure: Failure) -> Problem:
    return problems.attempt_failed(failure, job.history.attempts + 1, started=job.started)


def _refusal(job: Job, problem: Problem) -> Exception:
    """What to raise: by a status if that is still possible, else in the stream."""
    if job.stream is not None and job.stream.committed:
        return BrokenStreamError(job.stream.fail(problem), problem)
    return RefusedError(problem)

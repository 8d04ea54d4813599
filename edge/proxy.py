"""The path of one inference request: auth, pool, queue, attempts, answer.

Rules: a caller that leaves cancels the handler, and with it whatever it waits for; each permit is
released exactly once with the attempt's outcome; the bytes of prompts and keys go nowhere but to
the replica.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from edge import attempt
from edge.admission import Admission, Permit, RefusedError
from edge.attempt import Rejected, Result, Whole
from edge.client import ClientStream, Keeper
from edge.core import openai, problems
from edge.core.decisions import Attempt, Decisions, Ending, Notes, Record
from edge.core.dispatch import Dispatch, with_tried
from edge.core.openai import Call
from edge.core.problems import Problem
from edge.core.table import RoutingTable
from edge.failures import Failures
from edge.quarantine import Quarantine
from edge.upstream import Upstream
from trimtab.model import ApiKey, Outcome, Pool
from trimtab.policy.classify import Failure, Fault, classify
from trimtab.policy.queue import Ticket
from trimtab.policy.retry import History, Move, next_move
from trimtab.runtime import clock
from trimtab.runtime.telemetry import EdgeMetrics

BODY_IDLE_S = 30.0
"""Between two parts of a body: a caller that is silent for longer has gone or means harm."""
BODY_TOTAL_S = 300.0
"""For a whole body: the largest allowed by default, over 2 Mbit/s."""
CALLER = web.RequestKey("caller", ApiKey)


@dataclass(slots=True)
class Job:
    """One request on its way."""

    call: Call
    pool: Pool
    ticket: Ticket
    idle_s: float
    stream: ClientStream | None
    request_id: str
    history: History = field(default_factory=History)
    notes: Notes = field(default_factory=Notes)


class Proxy:
    """Serves inference requests."""

    def __init__(
        self,
        table: RoutingTable,
        dispatch: Dispatch,
        admission: Admission,
        upstream: Upstream,
        metrics: EdgeMetrics,
    ) -> None:
        self._table = table
        self._dispatch = dispatch
        self._admission = admission
        self._upstream = upstream
        self._metrics = metrics
        self._numbers = itertools.count(1)
        self._failures = Failures()
        self._quarantine = Quarantine(dispatch)
        self.decisions = Decisions()
        self.keeper = Keeper()

    def authorize(self, request: web.BaseRequest) -> None:
        """Learn who calls; raises RefusedError unless the fleet knows the caller's key."""
        if not self._table.ready:
            raise RefusedError(problems.not_ready())
        key = openai.credentials(request.headers)
        if not key:
            raise RefusedError(problems.no_key())
        caller = self._table.key(openai.key_hash(key))
        if caller is None:
            raise RefusedError(problems.bad_key(key))
        request[CALLER] = caller

    async def serve(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        """Answer one request; raises RefusedError while an error status is still possible."""
        call = await self._read(request)
        pool = self._pool(call)
        job = self._job(request, call, pool, request_id, clock.now_s())
        self._metrics.requests_in_flight.labels(pool.name).inc()
        ending = Ending("internal_error", 500, "internal_error")
        try:
            response = await self._run(job)
            ending = Ending("ok" if response.status < 400 else "client_error", response.status)
        except RefusedError as error:
            ending = self._ending(error.problem, error.problem.status)
            raise
        except _BrokenStreamError as error:
            response = error.response
            ending = self._ending(error.problem, response.status)
        except (asyncio.CancelledError, ConnectionError):
            ending = Ending("client_disconnect")
            raise
        finally:
            self._end(job, ending)
        return response

    def _ending(self, problem: Problem, status: int) -> Ending:
        outcome = self._metrics.outcome_of(problem.code)
        return Ending(outcome, status, problem.code, problem.retry_after_s)

    def _end(self, job: Job, ending: Ending) -> None:
        ticket, ended_s = job.ticket, clock.now_s()
        lasted_s = ended_s - ticket.since_s
        self._metrics.requests_in_flight.labels(job.pool.name).dec()
        self._metrics.finished(job.pool.name, ending.outcome, lasted_s)
        record = Record(
            request_id=job.request_id,
            pool=job.pool.name,
            tenant=ticket.tenant,
            urgency=ticket.urgency,
            came_ms=int(1000 * (clock.wall_s() - lasted_s)),
            since_s=ticket.since_s,
            notes=job.notes,
            first_byte_s=job.stream.started_s if job.stream else None,
            ended_s=ended_s,
            ending=ending,
        )
        self.decisions.add(record)

    async def _read(self, request: web.BaseRequest) -> Call:
        limit_bytes = self._table.policy.body_limit_bytes
        if (request.content_length or 0) > limit_bytes:
            raise RefusedError(problems.too_large(limit_bytes))
        body = await _body(request, limit_bytes)
        call = openai.parse(request.path, request.headers.get("content-type", ""), body)
        if isinstance(call, Problem):
            raise RefusedError(call)
        return call

    def _pool(self, call: Call) -> Pool:
        names = [pool.name for pool in self._table.snapshot.pools]
        if call.model is None:
            pool = self._table.only_pool()
            if pool is None:
                raise RefusedError(problems.model_required(names))
            return pool
        pool = self._table.pool(call.model)
        if pool is None:
            raise RefusedError(problems.unknown_model(call.model, names))
        return pool

    def _job(
        self, request: web.BaseRequest, call: Call, pool: Pool, request_id: str, now_s: float
    ) -> Job:
        policy, caller = self._table.policy, request[CALLER]
        patience_s = openai.patience_s(request.headers)
        ticket = Ticket(
            number=next(self._numbers),
            since_s=now_s,
            patience_s=math.inf if patience_s is None else patience_s,
            work=self._dispatch.work(pool.name, call.prompt_tokens, call.max_tokens),
            prompt_tokens=call.prompt_tokens,
            tenant=caller.name,
            urgency=caller.urgency,
            affinity=openai.affinity_key(request.headers, call, caller.name),
        )
        if call.stream:
            stream = ClientStream(request, request_id)
            return Job(call, pool, ticket, policy.idle_timeout_ms / 1000, stream, request_id)
        # a plain answer is silent until it is whole, so only the whole can be bounded
        total_s = max(policy.total_timeout_ms / 1000, patience_s or 0.0)
        return Job(call, pool, ticket, total_s, None, request_id)

    async def _run(self, job: Job) -> web.StreamResponse:
        async with self._kept(job):
            while True:
                result, replica = await self._attempt(job)
                if isinstance(result, Whole):
                    return await self._answer(job, result)
                if isinstance(result, Rejected):
                    return await self._pass_on(job, result)
                if not self._goes_on(job, result, replica):
                    return await self._give_up(job, result)

    @asynccontextmanager
    async def _kept(self, job: Job) -> AsyncIterator[None]:
        stream = job.stream
        if stream is None:
            yield
            return
        self.keeper.watch(stream, clock.now_s() + self._table.policy.head_hold_ms / 1000)
        try:
            yield
        finally:
            self.keeper.release(stream)
            if stream.started_s is not None:
                self._metrics.ttft.labels(job.pool.name).observe(
                    stream.started_s - job.ticket.since_s
                )

    async def _attempt(self, job: Job) -> tuple[Result, str]:
        again = job.history.attempts > 0
        if problem := self._poison(job):
            raise await _refusal(job, problem)
        try:
            permit = await self._admission.acquire(
                job.pool.name, job.ticket, job.notes, again=again
            )
        except RefusedError as error:
            raise await _refusal(job, error.problem) from error
        self._metrics.queue_wait.labels(job.pool.name).observe(clock.now_s() - job.ticket.since_s)
        self._metrics.homed(job.pool.name, permit.placement.at_home)
        if problem := self._poison(job):  # another copy broke replicas while this one waited
            self._admission.release(permit, Outcome.CLIENT)
            raise await _refusal(job, problem)
        # what a cancelled caller leaves behind
        failure: Failure | None = Failure(Fault.CLIENT_GONE)
        try:
            result = await self._send(job, permit)
            failure = _failure(result)
            permit.refused = failure is not None and failure.fault is Fault.REFUSED
            if failure is not None and not (job.stream is not None and job.stream.started):
                self._quarantine.blame(permit.placement, failure, job.call, job.request_id)
            return result, permit.route.replica
        finally:
            outcome = classify(failure)
            self._admission.release(permit, outcome)
            self._metrics.attempts.labels(permit.route.replica, outcome.name.lower()).inc()
            self._note(job, permit, outcome, failure)

    def _note(self, job: Job, permit: Permit, outcome: Outcome, failure: Failure | None) -> None:
        ended = Attempt(
            replica=permit.route.replica,
            picked_s=permit.placement.started_s,
            ended_s=clock.now_s(),
            outcome=outcome,
            fault=failure.fault.name.lower() if failure else "",
            status=failure.status if failure else 200,
            among=permit.placement.among,
            at_home=permit.placement.at_home,
        )
        job.notes.attempts.append(ended)
        if outcome not in {Outcome.OK, Outcome.CLIENT}:
            self._failures.tell(job.request_id, ended)

    async def _send(self, job: Job, permit: Permit) -> Result:
        # never the caller's id: vLLM makes it the engine's own, and ids must be unique there
        headers = {"x-request-id": f"{job.request_id}-{job.history.attempts}"}
        return await attempt.run(self._upstream, permit, job.call, headers, job.stream, job.idle_s)

    def _poison(self, job: Job) -> Problem | None:
        return self._quarantine.refusal(job.ticket.tenant, job.call)

    def _goes_on(self, job: Job, failure: Failure, replica: str) -> bool:
        if (job.stream is not None and job.stream.started) or self._poison(job):
            return False
        budget = self._dispatch.pool(job.pool.name).budget
        if next_move(job.history, failure, replica, budget, clock.now_s()) is Move.GIVE_UP:
            return False
        job.ticket = with_tried(job.ticket, job.history.tried)
        return True

    async def _answer(self, job: Job, whole: Whole) -> web.StreamResponse:
        if job.stream is not None:
            return await job.stream.finish()
        headers = {"content-type": whole.content_type, "x-request-id": job.request_id}
        return web.Response(body=whole.body, headers=headers)

    async def _pass_on(self, job: Job, rejected: Rejected) -> web.StreamResponse:
        if job.stream is not None and job.stream.committed:
            return await self._give_up(job, rejected.failure)
        headers = {"content-type": rejected.content_type, "x-request-id": job.request_id}
        status = rejected.failure.status
        return web.Response(body=rejected.body, status=status, headers=headers)

    async def _give_up(self, job: Job, failure: Failure) -> web.StreamResponse:
        if failure.fault is Fault.CLIENT_GONE:
            raise ConnectionResetError("the caller stopped reading")
        started = job.stream is not None and job.stream.started
        problem = problems.attempt_failed(failure, job.history.attempts + 1, started=started)
        raise await _refusal(job, problem)


class _BrokenStreamError(Exception):
    """The stream ended in an error event; carries it, and the response for the server."""

    def __init__(self, response: web.StreamResponse, problem: Problem) -> None:
        super().__init__(problem.code)
        self.response = response
        self.problem = problem


async def _body(request: web.BaseRequest, limit_bytes: int) -> bytes:
    """The whole body; raises RefusedError when it is too large or comes too slowly."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TOTAL_S):
            while not request.content.at_eof():
                async with asyncio.timeout(BODY_IDLE_S):
                    body += await request.content.readany()
                if len(body) > limit_bytes:
                    raise RefusedError(problems.too_large(limit_bytes))
    except TimeoutError:
        raise RefusedError(problems.too_slow("rest of the request body", BODY_IDLE_S)) from None
    return bytes(body)


async def _refusal(job: Job, problem: Problem) -> Exception:
    """What to raise: by a status if that is still possible, else in the stream."""
    if job.stream is not None and job.stream.committed:
        return _BrokenStreamError(await job.stream.fail(problem), problem)
    return RefusedError(problem)


def _failure(result: Result) -> Failure | None:
    if isinstance(result, Whole):
        return None
    return result.failure if isinstance(result, Rejected) else result


def new_request_id() -> str:
    """An id for one request, unique over the fleet."""
    return f"req_{uuid.uuid4().hex}"

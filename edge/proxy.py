"""The path of one inference request: auth, pool, its course over the replicas, record.

Rules: a caller that leaves cancels the handler, and with it whatever it waits for; the bytes of
prompts and keys go nowhere but to the replica.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid

from aiohttp import web

from edge.admission import Admission, RefusedError
from edge.client import ClientStream
from edge.core import openai, problems
from edge.core.continuation import Transcript
from edge.core.decisions import Decisions, Ending, Record
from edge.core.dispatch import Dispatch
from edge.core.openai import Call
from edge.core.problems import Problem
from edge.core.table import RoutingTable
from edge.course import BrokenStreamError, Course, Job
from edge.fallback import Fallbacks
from edge.idempotency import Once
from edge.upstream import Upstream
from trimtab.model import ApiKey, Pool
from trimtab.policy.deadline import deadline
from trimtab.policy.queue import Ticket
from trimtab.runtime import clock
from trimtab.runtime.telemetry import EdgeMetrics

BODY_IDLE_S = 30.0
"""Between two parts of a body: a caller that is silent for longer has gone or means harm."""
BODY_TOTAL_S = 300.0
"""For a whole body: the largest allowed by default, over 2 Mbit/s."""
CALLER = web.RequestKey("caller", ApiKey)


class Proxy:
    """Serves inference requests."""

    def __init__(
        self,
        table: RoutingTable,
        dispatch: Dispatch,
        admission: Admission,
        upstream: Upstream,
        metrics: EdgeMetrics,
        fallbacks: Fallbacks,
    ) -> None:
        self._table = table
        self._dispatch = dispatch
        self._metrics = metrics
        self._numbers = itertools.count(1)
        self._course = Course(table, dispatch, admission, upstream, metrics, fallbacks)
        self.keeper = self._course.keeper
        self.decisions = Decisions()
        self._once = Once(metrics)

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
        if problem := openai.beyond_context(call, self._table.routes(pool.name)):
            raise RefusedError(problem)
        return await self._once.serve(
            *(request, call, request[CALLER].sha256, request_id),
            lambda: self._serve(request, call, pool, request_id),
        )

    async def _serve(
        self, request: web.BaseRequest, call: Call, pool: Pool, request_id: str
    ) -> web.StreamResponse:
        job = self._job(request, call, pool, request_id, clock.now_s())
        self._metrics.requests_in_flight.labels(pool.name).inc()
        ending = Ending("internal_error", 500, "internal_error")
        try:
            response = await self._course.run(job)
            ending = Ending("ok" if response.status < 400 else "client_error", response.status)
        except RefusedError as error:
            ending = self._ending(error.problem, error.problem.status)
            raise
        except BrokenStreamError as error:
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
        within = deadline(
            patience_s,
            pool.request_timeout_ms / 1000,
            policy.total_timeout_ms / 1000,
            stream=call.stream,
        )
        ticket = Ticket(
            number=next(self._numbers),
            since_s=now_s,
            patience_s=min(within.within_s, patience_s or math.inf),
            work=self._dispatch.work(pool.name, call.prompt_tokens, call.max_tokens),
            prompt_tokens=call.prompt_tokens,
            tenant=caller.name,
            urgency=caller.urgency,
            affinity=openai.affinity_key(request.headers, call, caller.name),
        )
        # a plain answer is silent until it is whole, so only the whole can be bounded
        stream, idle_s = None, within.within_s
        if call.stream:
            idle_s = (pool.idle_timeout_ms or policy.idle_timeout_ms) / 1000
            stream = ClientStream(request, request_id)
            if not pool.no_failover:
                stream.transcript = Transcript()
        may_leave = caller.fallback
        return Job(call, pool, ticket, idle_s, stream, request_id, within, may_leave)


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


def new_request_id() -> str:
    """An id for one request, unique over the fleet."""
    return f"req_{uuid.uuid4().hex}"

"""The path of one inference request: auth, pool, its course over the replicas, record.

Rules: a caller that leaves cancels the handler, and with it whatever it waits for; the bytes of
prompts and keys go nowhere but to the replica.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable
from functools import partial

from edge import bodies
from edge.admission import Admission, RefusedError
from edge.client import ClientStream
from edge.core import arrivals, envelopes, headers, makers, models, multipart, openai, problems
from edge.core.arrivals import Arrivals
from edge.core.continuation import Transcript
from edge.core.decisions import Decisions, Ending, Record
from edge.core.dispatch import Dispatch
from edge.core.models import Target
from edge.core.multipart import MalformedError
from edge.core.openai import Call
from edge.core.problems import Problem
from edge.core.surface import Cost, Found, ModelIn
from edge.core.table import RoutingTable
from edge.course import BrokenStreamError, Course, Job
from edge.http.request import Request
from edge.http.response import Response
from edge.idempotency import Once
from edge.metrics import EdgeMetrics, outcome_of
from edge.tunnel import Tunnel, Tunnels
from edge.upload import Carried, Upload
from edge.ways import Ways
from trimtab.model import ApiKey, Pool, Serving
from trimtab.policy.deadline import deadline
from trimtab.policy.queue import Ticket
from trimtab.policy.work import pass_work
from trimtab.runtime import clock, shapes


class Proxy:
    """Serves inference requests."""

    def __init__(
        self,
        table: RoutingTable,
        dispatch: Dispatch,
        admission: Admission,
        ways: Ways,
        metrics: EdgeMetrics,
    ) -> None:
        self._table = table
        self._carriers = ways.carriers
        self._dispatch = dispatch
        self._metrics = metrics
        self._numbers = itertools.count(1)
        self._course = Course(table, dispatch, admission, ways, metrics)
        self.keeper = self._course.keeper
        self.decisions = Decisions()
        self.arrivals = Arrivals(clock.now_s())
        self.live: dict[int, Job] = {}
        """Requests under way, the oldest first, by their ticket's number."""
        self._once = Once(metrics)
        self.ledgers = self._once.ledgers
        self.tunnels = Tunnels()

    def authorize(self, request: Request) -> None:
        """Learn who calls; raises RefusedError unless the fleet knows the caller's key."""
        if not self._table.ready:
            raise RefusedError(problems.not_ready())
        key = openai.credentials(request.headers)
        if not key:
            raise RefusedError(problems.no_key())
        caller = self._table.key(openai.key_hash(key))
        if caller is None:
            raise RefusedError(problems.bad_key(key))
        if caller.expired(clock.wall_s()):
            raise RefusedError(problems.expired_key(key, shapes.moment(caller.expires_ms)))
        request.caller, request.journey.tenant = caller, caller.name

    async def serve(self, request: Request, found: Found, _request_id: str) -> Response:
        """Answer one request; raises RefusedError while an error status is still possible."""
        if found.entry.model is ModelIn.SOCKET:
            return await self._converse(request, found)
        if found.entry.model is ModelIn.FORM:
            return await self._run(await self._carry(request, found))
        call = await self._read(request, found)
        call, target, only = self._bind(call, request.caller)
        if problem := openai.beyond_context(call, self._table.routes(target.pool.name)):
            raise RefusedError(problem)

        def answer() -> Awaitable[Response]:
            return self._run(self._job(request, call, target, clock.now_s(), only))

        if not self._once.concerns(request, call):
            return await answer()
        return await self._once.serve(request, call, request.caller.sha256, answer)

    async def _carry(self, request: Request, found: Found) -> Job:
        """Begin to read a form with a file."""
        try:
            mark = multipart.boundary(request.headers.get("content-type", ""))
        except MalformedError as error:
            raise RefusedError(problems.bad_form(str(error))) from None
        upload = Upload(bodies.parts(request, self._table.policy.body_limit_bytes), mark)
        await upload.peek()
        target = self._target(request.caller, upload.model)
        call = Call(found.entry, found.path, b"", stream=upload.streams, answers_as=target.name)
        job = self._job(request, call, target, clock.now_s())
        carrier = self._carriers.carrier(multipart.content_type(mark), upload, target.adapter)
        job.passing = Carried(upload, carrier)
        return job

    async def _converse(self, request: Request, found: Found) -> Response:
        """Answer a request for a session, which may be long."""
        if request.hand_over is None:
            raise RefusedError(problems.not_a_websocket())
        tunnel, key = Tunnel(request, self._carriers), request.caller
        self.tunnels.add(tunnel)
        try:
            model = request.query.get("model")
            target = models.find(self._table.targets, key, model)
            if isinstance(target, Problem):
                target = self._target(key, model or await tunnel.asked())
            tunnel.may_name = partial(self._means, key, target)
            call = Call(found.entry, found.path, b"", answers_as=target.name)
            job = self._job(request, call, target, clock.now_s())
            job.idle_s = self._table.policy.idle_timeout_ms / 1000
            job.deadline = None  # a session may be long
            job.passing = tunnel
            return await self._run(job)
        except RefusedError as error:
            response = await tunnel.fail(error.problem)
            if response is None:
                raise
            return response
        finally:
            self.tunnels.remove(tunnel)

    def _means(self, key: ApiKey, target: Target, name: str) -> bool:
        found = models.find(self._table.targets, key, name)
        return isinstance(found, Target) and found[1:] == target[1:]

    async def _run(self, job: Job) -> Response:
        under_way = self._metrics.model(job.pool.name).in_flight[job.ticket.urgency]
        under_way.inc()
        self.live[job.ticket.number] = job
        ending = Ending("internal_error", 500, "internal_error")
        try:
            response = await self._course.run(job)
            ending = Ending("ok" if response.status < 400 else "client_error", response.status)
        except RefusedError as error:
            status = envelopes.status(error.problem, job.call.entry.dialect)
            ending = self._ending(job, error.problem, status)
            raise
        except BrokenStreamError as error:
            response = error.response
            ending = self._ending(job, error.problem, response.status)
        except (asyncio.CancelledError, ConnectionError):
            ending = Ending("ok", 200) if job.notes.answered else Ending("client_disconnect")
            raise
        finally:
            under_way.dec()
            self._end(job, ending)
        return response

    def _ending(self, job: Job, problem: Problem, status: int) -> Ending:
        outcome, wait_s = outcome_of(problem.code), problem.retry_after_s
        told_s = None if wait_s is None else headers.retry_after_s(wait_s, job.request_id)
        return Ending(outcome, status, problem.code, told_s, problem.reason)

    def _end(self, job: Job, ending: Ending) -> None:
        ticket, ended_s = job.ticket, clock.now_s()
        del self.live[ticket.number]
        lasted_s = ended_s - ticket.since_s
        cost, journey = job.call.entry.cost, job.journey
        served_s = sum([one.ended_s - one.picked_s for one in job.notes.attempts])
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
            caller_id=job.journey.caller_id,
            path=job.journey.path,
            stream=job.call.stream,
            prompt_tokens=job.call.prompt_tokens,
            own_s=max(0.0, ended_s - journey.came_s - journey.queued_s - served_s),
            retries=arrivals.retry(job.caller),
            is_pass=cost is Cost.PASS,
            model=job.target.name,
            trace_id=job.journey.trace_id,
            client=job.journey.client,
            trace=job.journey.trace,
        )
        job.journey.record = record
        self.decisions.add(record)
        self._metrics.ended(record)
        if job.passing is None and cost is not Cost.CHEAP:  # nobody knows the others' tokens
            self.arrivals.add(record)

    async def _read(self, request: Request, found: Found) -> Call:
        body = await bodies.read(request, self._table.policy.body_limit_bytes)
        if found.entry.model is ModelIn.ID:
            return openai.about(found, request.method, request.query)
        call = openai.parse(found, request.headers.get("content-type", ""), body)
        if isinstance(call, Problem):
            raise RefusedError(call)
        return call

    def _bind(self, call: Call, key: ApiKey) -> tuple[Call, Target, str]:
        """The call under the name its answer gets, its target, and the replica it is bound to."""
        by_id = call.entry.model is ModelIn.ID
        target = None if by_id else self._target(key, call.model)
        if target is not None and not call.previous:
            return call.answering_as(target.name), target, ""
        routes = self._table.routes(target.pool.name) if target else self._table.snapshot.routes
        names = [target.name for target in models.visible(self._table.targets, key)]
        found = makers.find(call.previous, key.name, routes, names)
        if isinstance(found, Problem):
            raise RefusedError(found)
        route, model = found
        target = target or self._target(key, model or route.pool)
        if target.pool.name != route.pool or (not by_id and route.serving is not Serving.OPEN):
            raise RefusedError(problems.replica_away(call.previous))
        return call.answering_as(call.model or model or target.name), target, route.replica

    def _target(self, key: ApiKey, model: str | None) -> Target:
        target = models.find(self._table.targets, key, model)
        if isinstance(target, Problem):
            raise RefusedError(target)
        return target

    def _job(
        self, request: Request, call: Call, target: Target, now_s: float, only: str = ""
    ) -> Job:
        policy, caller, pool = self._table.policy, request.caller, target.pool
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
            patience_s=min(within.allows_s, patience_s or math.inf),
            work=self._work(pool, call),
            prompt_tokens=call.prompt_tokens if call.entry.cost is Cost.ANSWER else 0,
            tenant=caller.name,
            urgency=caller.urgency,
            affinity=openai.affinity_key(request.headers, call, caller.name),
            adapter=target.adapter,
            only=only,
        )
        journey = request.journey
        # a plain answer is silent until it is whole, so only the whole can be bounded
        stream, idle_s = None, math.inf
        if call.stream:
            idle_s = (pool.idle_timeout_ms or policy.idle_timeout_ms) / 1000
            stream = ClientStream(request, call.entry.dialect, journey.request_id)
            if not pool.no_failover and call.path in openai.COMPLETIONS:
                stream.transcript = Transcript()
        return Job(call, target, caller, ticket, idle_s, stream, journey, request.headers, within)

    def _work(self, pool: Pool, call: Call) -> float:
        if call.entry.cost is Cost.ANSWER:
            return self._dispatch.work(pool.name, call.prompt_tokens, call.max_tokens)
        return pass_work(call.prompt_tokens)

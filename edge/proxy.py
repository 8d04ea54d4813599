"""The path of one inference request: auth, pool, its course over the replicas, record.

Rules: a caller that leaves cancels the handler, and with it whatever it waits for; the bytes of
prompts and keys go nowhere but to the replica.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from edge.admission import Admission, RefusedError
from edge.client import ClientStream
from edge.core import models, multipart, openai, problems, surface
from edge.core.continuation import Transcript
from edge.core.decisions import Decisions, Ending, Record
from edge.core.dispatch import Dispatch
from edge.core.models import Target
from edge.core.multipart import MalformedError
from edge.core.openai import Call
from edge.core.problems import Problem
from edge.core.table import RoutingTable
from edge.course import BrokenStreamError, Course, Job
from edge.passage import Passage
from edge.tunnel import Tunnel, Tunnels, is_websocket
from edge.upload import Carried, Upload
from edge.upstream import Upstream
from trimtab.model import ApiKey
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
        passage: Passage,
        metrics: EdgeMetrics,
    ) -> None:
        self._table = table
        self._passage = passage
        self._dispatch = dispatch
        self._metrics = metrics
        self._numbers = itertools.count(1)
        self._course = Course(table, dispatch, admission, upstream, metrics)
        self.keeper = self._course.keeper
        self.decisions = Decisions()
        self.tunnels = Tunnels()

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
        if request.path == surface.REALTIME:
            return await self._converse(request, request_id)
        if request.path in surface.AUDIO:
            upload = await self._open(request)
            target = self._target(request, upload.model)
            call = Call(request.path, b"", None, upload.streams, privileged=False)
            content_type = request.headers["content-type"]
            carrier = self._passage.carrier(content_type, upload, target.adapter)
            passing = Carried(upload, carrier)
        else:
            call, passing = await self._read(request), None
            target = self._target(request, call.model)
        job = self._job(request, call, target, request_id, clock.now_s())
        job.passing = passing
        return await self._run(job)

    async def _converse(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        """Answer a request for a session, which may be long."""
        if not is_websocket(request):
            raise RefusedError(problems.not_a_websocket())
        tunnel = Tunnel(request, self._passage)
        self.tunnels.add(tunnel)
        try:
            model = request.query.get("model")
            target = models.find(self._table.targets, request[CALLER], model)
            if isinstance(target, Problem):
                target = self._target(request, model or await tunnel.asked())
            tunnel.may_name = partial(self._means, request[CALLER], target)
            call = Call(request.path, b"", None, stream=False, privileged=False)
            job = self._job(request, call, target, request_id, clock.now_s())
            job.idle_s = self._table.policy.idle_timeout_ms / 1000
            job.passing = tunnel
            return await self._run(job)
        except RefusedError as error:
            response = await tunnel.fail(error.problem)
            if response is None:
                raise
            return response
        finally:
            self.tunnels.remove(tunnel)

    def _means(self, caller: ApiKey, target: Target, name: str) -> bool:
        found = models.find(self._table.targets, caller, name)
        return isinstance(found, Target) and found[1:] == target[1:]

    async def _run(self, job: Job) -> web.StreamResponse:
        self._metrics.requests_in_flight.labels(job.pool.name).inc()
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
        body = b"".join([part async for part in _parts(request, limit_bytes)])
        call = openai.parse(request.path, request.headers.get("content-type", ""), body)
        if isinstance(call, Problem):
            raise RefusedError(call)
        return call

    async def _open(self, request: web.BaseRequest) -> Upload:
        try:
            mark = multipart.boundary(request.headers.get("content-type", ""))
        except MalformedError as error:
            raise RefusedError(problems.bad_form(str(error))) from None
        upload = Upload(_parts(request, self._table.policy.body_limit_bytes), mark)
        await upload.peek()
        return upload

    def _target(self, request: web.BaseRequest, model: str | None) -> Target:
        target = models.find(self._table.targets, request[CALLER], model)
        if isinstance(target, Problem):
            raise RefusedError(target)
        return target

    def _job(
        self, request: web.BaseRequest, call: Call, target: Target, request_id: str, now_s: float
    ) -> Job:
        policy, caller, pool = self._table.policy, request[CALLER], target.pool
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
            adapter=target.adapter,
        )
        if call.stream:
            stream = ClientStream(request, request_id)
            if not pool.no_failover and call.path not in surface.AUDIO:
                stream.transcript = Transcript()
            idle_s = policy.idle_timeout_ms / 1000
            return Job(call, target, caller, ticket, idle_s, stream, request_id)
        # a plain answer is silent until it is whole, so only the whole can be bounded
        total_s = max(policy.total_timeout_ms / 1000, patience_s or 0.0)
        return Job(call, target, caller, ticket, total_s, None, request_id)


async def _parts(request: web.BaseRequest, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes; raises RefusedError when it is too large or comes too slowly."""
    size_bytes, ends_s = 0, clock.now_s() + BODY_TOTAL_S
    try:
        while not request.content.at_eof():
            async with asyncio.timeout(min(BODY_IDLE_S, ends_s - clock.now_s())):
                part = await request.content.readany()
            size_bytes += len(part)
            if size_bytes > limit_bytes:
                raise RefusedError(problems.too_large(limit_bytes))
            yield part
    except TimeoutError:
        raise RefusedError(problems.too_slow("rest of the request body", BODY_IDLE_S)) from None


def new_request_id() -> str:
    """An id for one request, unique over the fleet."""
    return f"req_{uuid.uuid4().hex}"

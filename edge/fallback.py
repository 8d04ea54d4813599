"""The way out of the fleet: an OpenAI-compatible API elsewhere, for what the fleet would refuse.

Rules: its key is known to this process only, and sent to nobody else, as each API has connections
of its own; nothing of the caller goes there but the body (core/outside says whose); at most so many
requests at once as configured. One attempt; when it fails, the fleet's own refusal stands, with a
word about it, and what the API said stays here: it may name accounts and keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from edge import attempt, upstream
from edge.admission import Permit, RefusedError
from edge.attempt import Errand, Result, Whole
from edge.core import outside, problems
from edge.core.decisions import Attempt
from edge.core.dispatch import Placement
from edge.core.outside import Target
from edge.failures import Failures
from edge.metrics import EdgeMetrics
from edge.upstream import Upstream
from trimtab.model import Outcome, Route
from trimtab.policy.classify import Failure, Fault, classify
from trimtab.runtime import clock

if TYPE_CHECKING:
    from edge.course import Job

NAME = "fallback"
"""What stands where a replica's name would."""
SERVED_OUTSIDE = {"x-trimtab-served-by": NAME}


class Fallbacks:
    """Of all pools that have one."""

    def __init__(
        self, targets: Mapping[str, tuple[Target, Upstream]], metrics: EdgeMetrics
    ) -> None:
        self._targets = targets
        self._metrics = metrics
        self._running: Counter[str] = Counter()
        self._failures = Failures()

    async def answer(self, job: Job, refused: RefusedError) -> Whole:
        """The answer of the API elsewhere; raises RefusedError when there is none."""
        pool, refusal = job.pool.name, refused.problem
        if pool not in self._targets or not outside.may_leave(
            job.call, refusal, allowed=job.may_leave, started=job.started
        ):
            raise refused
        if self._running[pool] >= self._targets[pool][0].max_requests:
            self._metrics.fallbacks.labels(pool, "full").inc()
            raise RefusedError(problems.nowhere(refusal, "is used as much as it may be"))
        result = await self._ask(job)
        failure = attempt.failure(result)
        if isinstance(result, Whole):
            return result
        if failure is not None and failure.fault is Fault.CLIENT_GONE:
            raise ConnectionResetError("the caller stopped reading")
        if job.started:
            raise RefusedError(problems.fallback_broke())
        said = failure and (failure.status or failure.fault.name.lower())
        raise RefusedError(problems.nowhere(refusal, f"was asked and failed, too ({said})"))

    async def _ask(self, job: Job) -> Result:
        pool, asked_s = job.pool.name, clock.now_s()
        target, api = self._targets[pool]
        route = Route(NAME, pool, "", target.url.rstrip("/"), target.model)
        permit = Permit(Placement(pool, job.ticket, route, asked_s, ()))
        job.notes.outside = True
        if job.stream is not None:
            job.stream.mark(SERVED_OUTSIDE)
        headers = {"x-request-id": job.request_id}
        call = outside.elsewhere(job.call)
        result: Result | None = None
        self._running[pool] += 1
        try:
            errand = Errand(permit, call, headers, job.stream, job.idle_s)
            result = await attempt.run(api, errand)
        finally:
            failure = attempt.failure(result) if result is not None else job.left(clock.now_s())
            self._running[pool] -= 1
            self._metrics.fallbacks.labels(pool, "failed" if failure else "answered").inc()
            self._note(job, asked_s, failure)
        return result

    def _note(self, job: Job, asked_s: float, failure: Failure | None) -> None:
        ended = Attempt(
            replica=NAME,
            picked_s=asked_s,
            ended_s=clock.now_s(),
            outcome=classify(failure),
            fault=failure.fault.name.lower() if failure else "",
            status=failure.status if failure else 200,
            among=(),
        )
        job.notes.attempts.append(ended)
        if ended.outcome not in {Outcome.OK, Outcome.CLIENT}:
            self._failures.tell(job.request_id, ended)


@asynccontextmanager
async def connect(targets: Mapping[str, Target], metrics: EdgeMetrics) -> AsyncIterator[Fallbacks]:
    """The connections, for as long as the edge runs."""
    async with AsyncExitStack() as stack:
        found = {
            pool: (target, await stack.enter_async_context(upstream.connect(target.key)))
            for pool, target in targets.items()
        }
        yield Fallbacks(found, metrics)

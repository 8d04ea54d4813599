"""Two attempts at one late stream: policy/hedge at this edge.

Rules: the first one to have data is the caller's, and the other is cancelled in that very moment,
before it can send anything; each attempt releases its own permit. While the first is not late, and
in pools that do not hedge, nothing is different but a task and a timer, or nothing at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from edge.admission import Admission, Permit
from edge.attempt import Result
from edge.core import surface
from edge.core.table import RoutingTable
from edge.metrics import EdgeMetrics
from trimtab.model import Outcome
from trimtab.policy.classify import Failure
from trimtab.policy.hedge import Hedging
from trimtab.runtime import clock
from trimtab.runtime.tasks import TaskRunner

if TYPE_CHECKING:
    from edge.course import Job

Tried = tuple[Result, str]
Try = Callable[[Permit], Coroutine[Any, Any, Tried]]


class Hedger:
    """Runs attempts, and others beside them."""

    def __init__(self, table: RoutingTable, admission: Admission, metrics: EdgeMetrics) -> None:
        self._table = table
        self._admission = admission
        self._metrics = metrics
        self._pools: dict[str, Hedging] = {}

    async def run(self, job: Job, permit: Permit, attempt: Try) -> Tried:
        """The result of `attempt`, or of another one beside it, and which replica gave it."""
        if not job.pool.hedge or job.stream is None or not _is_hedged(job, permit):
            return await attempt(permit)
        hedging = self._pools.setdefault(job.pool.name, Hedging())
        if not job.history.attempts:
            hedging.deposit()
        _watch(job, permit, hedging)
        delay_s = hedging.delay_s(permit.placement.ticket.prompt_tokens)
        if delay_s is None:
            return await attempt(permit)
        async with TaskRunner() as runner:
            first = self._start(runner, permit, attempt)
            await asyncio.wait({first}, timeout=delay_s)
            late = not first.done() and not permit.began
            hedge = self._hedge(job, permit, hedging) if late else None
            if hedge is None:
                return await first
            second = self._start(runner, hedge, attempt)
            permit.on_began = partial(_outrun, second, hedge, hedging, permit.on_began)
            hedge.on_began = partial(_outrun, first, permit, hedging, hedge.on_began)
            found = await _first_answer({first: permit, second: hedge})
        result = "won" if hedge.began else "lost" if hedge.outrun else "failed"
        self._metrics.hedges.labels(job.pool.name, result).inc()
        if isinstance(found[0], Failure) and not job.started:
            job.history.tried |= {permit.route.replica, hedge.route.replica}
        return found

    def _start(self, runner: TaskRunner, permit: Permit, attempt: Try) -> asyncio.Task[Tried]:
        begun = False

        async def run() -> Tried:
            nonlocal begun
            begun = True
            return await attempt(permit)

        def ended(_: object) -> None:
            if not begun:  # cancelled before its first step: nobody else releases it
                self._admission.release(permit, Outcome.CLIENT)

        task = runner.once("attempt", run())
        task.add_done_callback(ended)
        return task

    def _hedge(self, job: Job, permit: Permit, hedging: Hedging) -> Permit | None:
        hedging.keep({route.replica for route in self._table.routes(job.pool.name)})
        hedge = self._admission.beside(permit) if hedging.tokens >= 1.0 else None
        if hedge is not None:
            hedging.withdraw()
            job.journey.placed(hedge.route.replica, 0.0)
            _watch(job, hedge, hedging)
        return hedge


def _is_hedged(job: Job, permit: Permit) -> bool:
    """Only what is asked for the first time, and whose answer no replica has to remember."""
    special = permit.borrowed or job.passing is not None or job.call.path == surface.RESPONSES
    return not special and not job.started


async def _first_answer(permits: dict[asyncio.Task[Tried], Permit]) -> Tried:
    """Of several attempts: what is no failure, else the last failure, which may have begun."""
    failed: Tried | None = None
    running = set(permits)
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.cancelled():
                continue
            if not isinstance(task.result()[0], Failure):
                for slower in running:
                    permits[slower].outrun = True
                    slower.cancel()
                return task.result()
            failed = task.result()
    if failed is None:
        raise asyncio.CancelledError
    return failed


def _watch(job: Job, permit: Permit, hedging: Hedging) -> None:
    """Learn from when it begins, and that its answer is the caller's."""
    told = permit.on_began

    def began() -> None:
        permit.began = True
        job.journey.replica = permit.route.replica
        _observe(permit, hedging)
        told()

    permit.on_began = began


def _outrun(
    slower: asyncio.Task[Tried], permit: Permit, hedging: Hedging, told: Callable[[], None]
) -> None:
    """The other attempt has begun."""
    told()
    if not slower.done():
        permit.outrun = True
        _observe(permit, hedging)
        slower.cancel()


def _observe(permit: Permit, hedging: Hedging) -> None:
    placement = permit.placement
    took_s = clock.now_s() - placement.started_s
    hedging.observe(permit.route.replica, placement.ticket.prompt_tokens, took_s)

"""What an edge exports, as trimtab/catalogue.py defines it.

Rules: what a request adds is added once, at its end, from its record, and costs it under 3 us (no
chunk of a stream is ever counted by itself); the children of a model and a tenant are looked up
once and kept; what only has a state (`refresh`) is read when somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from edge.core.decisions import Attempt, Record
from edge.core.dispatch import Dispatch
from trimtab import catalogue
from trimtab.catalogue import CODE, MODEL, OTHER, TENANT
from trimtab.model import Outcome, Urgency
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.urgency import BUDGETS_S, known
from trimtab.runtime import clock, telemetry
from trimtab.runtime.listener_tls import ListenerTls
from trimtab.runtime.tls import Identity

_OUTCOMES = {
    "server_is_overloaded": "shed",
    "no_replica_available": "shed",
    "upstream_timeout": "timeout",
    "replica_lost": "replica_error",
    "replica_error": "replica_error",
    "fallback_broke": "replica_error",
}
_RESULTS = {
    Fault.EMPTY: "reset",
    Fault.ABORTED: "reset",
    Fault.CUT: "reset",
    Fault.STALE: "reset",
    Fault.REFUSED: "connect_error",
    Fault.UNREACHABLE: "connect_error",
    Fault.SILENT: "timeout",
    Fault.LOST: "lost",
    Fault.MALFORMED: "malformed",
    Fault.CLIENT_GONE: "abandoned",
    Fault.OUTRUN: "abandoned",
    Fault.LATE: "abandoned",
}
CLIENT_LEFT = 499
"""What nginx made of a caller that was not answered; we send it to nobody."""
_CODES = frozenset(CODE.values)


def outcome_of(code: str) -> str:
    """The outcome that an error code means."""
    return _OUTCOMES.get(code, "client_error")


def result_of(failure: Failure | None, outcome: Outcome) -> str:
    """How an attempt ended."""
    if failure is None:
        return "ok"
    if outcome is Outcome.OVERLOAD:
        return "backpressure"
    if failure.fault is Fault.STATUS:
        return "http_4xx" if failure.status < 500 else "http_5xx"
    return _RESULTS[failure.fault]


def _code(status: int) -> str:
    code = str(status)
    return code if code in _CODES else OTHER


class EdgeMetrics:
    """What an edge exports."""

    def __init__(
        self,
        dispatch: Dispatch | None = None,
        identity: Identity | None = None,
        listener: ListenerTls | None = None,
    ) -> None:
        """What `refresh` is to look at, where there is such."""
        self._dispatch, self._identity, self._listener = dispatch, identity, listener
        self.registry = CollectorRegistry()
        counter = partial(telemetry.counter, self.registry)
        gauge = partial(telemetry.gauge, self.registry)
        histogram = partial(telemetry.histogram, self.registry)
        self.requests = counter(catalogue.EDGE_REQUESTS)
        self.rejected = counter(catalogue.EDGE_REJECTED)
        self.requests_in_flight = gauge(catalogue.EDGE_REQUESTS_IN_FLIGHT)
        self.queue_depth = gauge(catalogue.EDGE_QUEUE_DEPTH)
        self.queue_wait = histogram(catalogue.EDGE_QUEUE_WAIT)
        self.ttft = histogram(catalogue.EDGE_TTFT)
        self.itl = histogram(catalogue.EDGE_ITL)
        self.tpot = histogram(catalogue.EDGE_TPOT)
        self.duration = histogram(catalogue.EDGE_DURATION)
        self.overhead = histogram(catalogue.EDGE_OVERHEAD)
        self.shed = counter(catalogue.EDGE_SHED)
        self.tokens = counter(catalogue.EDGE_TOKENS)
        self.client_retries = counter(catalogue.EDGE_CLIENT_RETRIES)
        self.replays = counter(catalogue.EDGE_REPLAYS)
        self.attempts = counter(catalogue.EDGE_ATTEMPTS)
        self.retry_budget = gauge(catalogue.EDGE_RETRY_BUDGET)
        self.failovers = counter(catalogue.EDGE_FAILOVERS)
        self.affinity = counter(catalogue.EDGE_AFFINITY)
        self.hedges = counter(catalogue.EDGE_HEDGES)
        self.fallbacks = counter(catalogue.EDGE_FALLBACKS)
        self.config_revision = gauge(catalogue.EDGE_CONFIG_REVISION)
        self.connected = gauge(catalogue.EDGE_CONNECTED)
        self.mode = gauge(catalogue.EDGE_AUTONOMY)
        self.loop_lag = histogram(catalogue.EDGE_LOOP_LAG)
        self.access_lines_dropped = counter(catalogue.EDGE_ACCESS_LINES_DROPPED)
        self.process = telemetry.ProcessMetrics(self.registry, "edge")
        self._models: dict[str, ModelMetrics] = {}

    def model(self, pool: str) -> ModelMetrics:
        """What one model adds to."""
        found = self._models.get(pool)
        if found is None:
            name = pool if len(self._models) < MODEL.most else OTHER
            found = self._models.get(name) or ModelMetrics(self, name)
            self._models[name] = found
        return found

    def attempted(self, replica: str, failure: Failure | None, outcome: Outcome) -> None:
        """An attempt ended."""
        self.attempts.labels(replica, result_of(failure, outcome)).inc()

    def ended(self, record: Record) -> None:
        """A client request ended."""
        self.model(record.pool).ended(record)
        if record.retries:
            count = str(record.retries) if record.retries < 3 else "3+"
            self.client_retries.labels(count).inc()

    def turned_away(self, record: Record) -> None:
        """A client request ended; counts it if it never asked for a replica, and was refused."""
        if not record.pool and record.ending.status >= 400:
            self.rejected.labels(_code(record.ending.status)).inc()

    def refresh(self) -> None:
        """Look at what has a state; on the loop."""
        if self._identity is not None:
            self.process.expires("peer", self._identity.peer.not_after_s)
        if self._listener is not None:
            self.process.expires("listener", self._listener.expires_s)
        self.queue_depth.clear()
        self.retry_budget.clear()
        for pool, state in self._dispatch.pools().items() if self._dispatch else ():
            for urgency in BUDGETS_S:
                self.queue_depth.labels(pool, urgency.name.lower())
            for urgency, _, line in state.queue.lines():
                self.queue_depth.labels(pool, urgency.name.lower()).inc(len(line.tickets))
            self.retry_budget.labels(pool).set(state.budget.left_ratio(clock.now_s()))

    async def sleep(self, seconds: float) -> None:
        """Sleep, and measure how much longer than that it took."""
        asked_s = clock.now_s()
        await asyncio.sleep(seconds)
        self.loop_lag.observe(max(0.0, clock.now_s() - asked_s - seconds))

    def render(self, accept: str = "") -> bytes:
        """What Prometheus scrapes, as it asks for it: OpenMetrics has exemplars."""
        return choose_encoder(accept)[0](self.registry)


class ModelMetrics:
    """The children of one model."""

    def __init__(self, metrics: EdgeMetrics, name: str) -> None:
        self._metrics = metrics
        self._name = name
        self.queue_wait = metrics.queue_wait.labels(name)
        self._ttft = metrics.ttft.labels(name)
        self._itl = metrics.itl.labels(name)
        self._tpot = metrics.tpot.labels(name)
        self._duration = metrics.duration.labels(name)
        self._overhead = metrics.overhead.labels(name)
        self.home = {
            True: metrics.affinity.labels(name, "home"),
            False: metrics.affinity.labels(name, "away"),
        }
        self.in_flight = {
            urgency: metrics.requests_in_flight.labels(name, known(urgency).name.lower())
            for urgency in Urgency
        }
        self._tenants: dict[str, TenantMetrics] = {}

    def ended(self, record: Record) -> None:
        """A client request ended."""
        ending, lasted_s = record.ending, record.ended_s - record.since_s
        tenant = self._tenants.get(record.tenant) or self._tenant(record.tenant)
        tenant.ended(ending.status, ending.outcome)
        self._duration.observe(lasted_s)
        if ending.reason:
            self._metrics.shed.labels(self._name, ending.reason).inc()
        if not record.notes.attempts:
            return
        self._overhead.observe(record.own_s)
        made = 0 if record.is_pass else sum([one.tokens for one in record.notes.attempts])
        tenant.used(record.notes.attempts, made)
        if record.first_byte_s is not None:
            self._ttft.observe(record.first_byte_s - record.since_s)
            if made > 1:
                gap_s = (record.ended_s - record.first_byte_s) / (made - 1)
                self._itl.observe(gap_s, times=made - 1)
                self._tpot.observe(gap_s)

    def exemplify(self, record: Record, labels: dict[str, str], wall_s: float) -> None:
        """Have it be an example of its size; `wall_s` makes its times those of a clock."""
        since_s, at_s = record.since_s, record.ended_s + wall_s
        self._duration.exemplify(record.ended_s - since_s, labels, at_s)
        if record.first_byte_s is not None:
            self._ttft.exemplify(record.first_byte_s - since_s, labels, at_s)

    def _tenant(self, name: str) -> TenantMetrics:
        name = name if len(self._tenants) < TENANT.most else OTHER
        found = self._tenants.get(name) or TenantMetrics(self._metrics, self._name, name)
        self._tenants[name] = found
        return found


class TenantMetrics:
    """The children of one model and tenant."""

    def __init__(self, metrics: EdgeMetrics, model: str, name: str) -> None:
        self._requests = metrics.requests
        self._tokens = metrics.tokens
        self._who = (model, name)
        self._ended: dict[tuple[int, str], telemetry.Counter] = {}
        self._input = metrics.tokens.labels(*self._who, "input")
        self._output = metrics.tokens.labels(*self._who, "output")

    def ended(self, status: int, outcome: str) -> None:
        """A request of theirs ended."""
        found = self._ended.get((status, outcome))
        if found is None:
            child = self._requests.labels(*self._who, _code(status or CLIENT_LEFT), outcome)
            found = self._ended[status, outcome] = child
        found.inc()

    def used(self, attempts: Sequence[Attempt], made_tokens: int) -> None:
        """The tokens of one of their requests."""
        self._output.inc(made_tokens)
        for attempt in attempts:
            if attempt.prompt_tokens:  # who goes on with an answer has read its beginning, too
                self._input.inc(attempt.prompt_tokens - (attempt.continued_at_tokens or 0))
                if attempt.cached_tokens:
                    self._tokens.labels(*self._who, "cached").inc(attempt.cached_tokens)
                break
        for attempt in attempts:
            if attempt.reasoning_tokens:
                self._tokens.labels(*self._who, "reasoning").inc(attempt.reasoning_tokens)

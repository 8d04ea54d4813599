"""Recording rules: what several alerts and dashboards read, computed once.

Rules: named level:metric:operations, as Prometheus' own advice has it; a recorded series knows its
labels like those of the catalogue, so they are checked wherever it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitoring import foreign
from monitoring.promql import Expr, count, mean, of, quantile, share_below
from trimtab import catalogue

TTFT_SLO_S = 10.0
"""A stream that has begun by then was served well; a bound of the buckets."""
TTFT_OBJECTIVE = 0.99
ANSWERED_OBJECTIVE = 0.995
"""Of requests, those that were not refused and did not fail by our doing."""
OURS = "=~shed|replica_error|timeout|internal_error"
"""Outcomes that are ours to answer for; what callers do wrong or give up is not."""
BURN_WINDOWS = ("5m", "30m", "1h", "6h")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One rule."""

    record: str
    expr: Expr

    def read(self) -> Expr:
        """Its series, for other expressions."""
        return Expr(self.record, self.expr.labels)

    def of(self, **matchers: str) -> Expr:
        """Those with these labels, `$` variables of a dashboard."""
        self.expr.has(matchers)
        inner = ", ".join(f'{name}=~"{value}"' for name, value in matchers.items())
        return Expr(f"{self.record}{{{inner}}}", self.expr.labels)


def _routed(window: str) -> Expr:
    return of(catalogue.REPLICA_ROUTED).rate(window).by("sum", "model", "replica")


SHARE = Recorded(
    "trimtab:replica_share:ratio_rate1m",
    _routed("1m").share_of(of(catalogue.REPLICA_ROUTED).rate("1m").by("sum", "model"), "model"),
)
REQUESTS = Recorded(
    "trimtab:model_requests:rate5m", of(catalogue.EDGE_REQUESTS).rate("5m").by("sum", "model")
)
SHED = Recorded(
    "trimtab:model_shed:ratio_rate5m",
    of(catalogue.EDGE_REQUESTS, outcome="shed")
    .rate("5m")
    .by("sum", "model")
    .part_of(REQUESTS.read()),
)
TTFT_P99 = Recorded(
    "trimtab:model_ttft_seconds:p99_5m", quantile(0.99, catalogue.EDGE_TTFT, "5m", "model")
)
ENGINE_QUEUE = Recorded(
    "trimtab:engine_queue_seconds:mean_5m", mean(foreign.VLLM_QUEUE_TIME, "5m", "replica")
)
ITERATIONS = Recorded(
    "trimtab:engine_iterations:increase2m",
    count(foreign.VLLM_ITERATIONS).increase("2m").by("sum", "replica"),
)


def _unanswered(window: str) -> Recorded:
    asked = of(catalogue.EDGE_REQUESTS).rate(window).by("sum", "model")
    bad = of(catalogue.EDGE_REQUESTS, outcome=OURS).rate(window).by("sum", "model")
    return Recorded(f"trimtab:model_unanswered:ratio_rate{window}", bad.part_of(asked))


def _late(window: str) -> Recorded:
    in_time = share_below(TTFT_SLO_S, catalogue.EDGE_TTFT, window, "model")
    return Recorded(f"trimtab:model_late:ratio_rate{window}", in_time.rest())


UNANSWERED = {window: _unanswered(window) for window in BURN_WINDOWS}
LATE = {window: _late(window) for window in BURN_WINDOWS}
RULES = (
    *(SHARE, REQUESTS, SHED, TTFT_P99, ENGINE_QUEUE, ITERATIONS),
    *UNANSWERED.values(),
    *LATE.values(),
)

"""Expressions refuse what does not exist, and say what does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monitoring.promql import Expr, absent, count, mean, of, quantile, share_below
from trimtab import catalogue as ours

REQUESTS, TTFT = ours.EDGE_REQUESTS, ours.EDGE_TTFT


@pytest.mark.parametrize(
    ("expr", "text", "labels"),
    [
        (
            of(REQUESTS, model="=~$m", outcome="!=ok").rate("5m").by("sum", "model"),
            'sum by (model) (rate(trimtab_edge_requests_total{model=~"$m", outcome!="ok"}[5m]))',
            {"model"},
        ),
        (
            of(ours.REPLICA_TRANSITIONS, from_="healthy").increase("1m").by("sum"),
            'sum (increase(trimtab_replica_breaker_transitions_total{from="healthy"}[1m]))',
            set(),
        ),
        (
            quantile(0.99, TTFT, "5m", "model"),
            "histogram_quantile(0.99, sum by (model, le) "
            "(rate(trimtab_edge_time_to_first_token_seconds_bucket[5m])))",
            {"model"},
        ),
        (
            share_below(10.0, TTFT, "1h").rest(),
            '1 - (sum (rate(trimtab_edge_time_to_first_token_seconds_bucket{le="10.0"}[1h])) / '
            "sum (rate(trimtab_edge_time_to_first_token_seconds_count[1h])))",
            set(),
        ),
        (
            (of(ours.MODEL_SLOTS).number("==", "0")).also(of(ours.MODEL_REPLICAS) > 0),
            "(trimtab_model_slots == 0) and (trimtab_model_replicas > 0)",
            {"model", "job", "instance"},
        ),
        (
            absent(of(ours.CONTROLPLANE_LEADER) >= 1),
            "absent(trimtab_controlplane_leader >= 1)",
            set(),
        ),
    ],
)
def test_what_they_say(expr: Expr, text: str, labels: set[str]) -> None:
    assert (expr.text, set(expr.labels)) == (text, labels)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: of(REQUESTS, replica="r1"), "no label replica"),
        (lambda: of(REQUESTS, outcome="ejected"), 'outcome is never "ejected"'),
        (lambda: of(REQUESTS, code="=~5..|6.."), r'code is never "6\.\."'),
        (lambda: of(REQUESTS).by("sum", "model"), "read it by rate"),
        (lambda: of(REQUESTS) > 3, "read it by rate"),
        (lambda: of(ours.MODEL_SLOTS).rate("1m"), "not a counter"),
        (lambda: of(REQUESTS).rate("1m").by("sum", "replica"), "no label replica"),
        (lambda: of(REQUESTS).rate("1m").by("sum", "model").says("{{tenant}}"), "no label tenant"),
        (lambda: of(ours.MODEL_SLOTS).says("{{ $labels.node }} is full"), "no label node"),
        (lambda: of(TTFT), "a histogram"),
        (lambda: count(ours.MODEL_SLOTS), "no histogram"),
        (lambda: share_below(11.0, TTFT, "1h"), "no bound"),
        (lambda: mean(TTFT, "5m", "tenant"), "no label tenant"),
        (lambda: of(ours.MODEL_SLOTS) / of(ours.REPLICA_SLOTS), "other labels"),
        (lambda: of(ours.MODEL_SLOTS).meet("/", of(ours.AGENT_REPORT_AGE), ["model"]), "no label"),
    ],
)
def test_what_they_refuse(make: Callable[[], object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()

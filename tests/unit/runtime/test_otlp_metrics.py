"""trimtab/runtime/otlp_metrics: what /metrics says, OTLP says."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trimtab.runtime import otlp_metrics, otlp_spans

RESOURCE = otlp_spans.resource({"service.name": "trimtab-edge"})
TRACE = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


def told(registry: CollectorRegistry) -> dict[str, Any]:
    request = otlp_metrics.request(registry.collect(), RESOURCE, 5.0, 8.0)
    [whose] = request.resource_metrics
    assert whose.resource == RESOURCE
    return {metric.name: metric for metric in whose.scope_metrics[0].metrics}


def labels(point: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in point.attributes}


def test_counters_and_gauges() -> None:
    registry = CollectorRegistry()
    counter = Counter("trimtab_x", "Text.", ["model"], registry=registry)
    counter.labels("a").inc(3)
    counter.labels("b").inc()
    Gauge("trimtab_y_seconds", "Text.", registry=registry).set(0.5)
    found = told(registry)
    total = found["trimtab_x"]
    assert total.description == "Text."
    assert total.sum.is_monotonic
    assert total.sum.aggregation_temporality == otlp_metrics.CUMULATIVE
    assert {labels(p)["model"]: p.as_double for p in total.sum.data_points} == {"a": 3, "b": 1}
    [point] = found["trimtab_y_seconds"].gauge.data_points
    assert (point.as_double, found["trimtab_y_seconds"].unit) == (0.5, "s")
    assert (point.start_time_unix_nano, point.time_unix_nano) == (5 * 10**9, 8 * 10**9)


def test_histograms_with_their_exemplars() -> None:
    registry = CollectorRegistry()
    made = Histogram("trimtab_z_seconds", "Text.", ["model"], registry=registry, buckets=(1, 2))
    for amount in (0.5, 1.5, 1.6, 7.0):
        made.labels("a").observe(amount, TRACE if amount == 7.0 else None)
    made.labels("b").observe(1.0)
    points = {
        labels(p)["model"]: p for p in told(registry)["trimtab_z_seconds"].histogram.data_points
    }
    point = points["a"]
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == ([1, 2, 1], [1, 2])
    assert (point.count, round(point.sum, 3)) == (4, 10.6)
    [exemplar] = point.exemplars
    assert (exemplar.as_double, exemplar.trace_id.hex()) == (7.0, TRACE["trace_id"])
    assert exemplar.span_id.hex() == TRACE["span_id"]
    assert points["b"].count == 1
    assert "le" not in labels(point)

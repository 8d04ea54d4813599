"""A Prometheus registry as OTLP metrics: what is counted is counted once, and told twice.

Names, labels and buckets are those of /metrics (without `_total`, as OTLP knows what a counter is);
exemplars come along.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from prometheus_client import Metric
from prometheus_client.samples import Sample

from trimtab.runtime.otlp_spans import SCOPE, attribute, nanoseconds

CUMULATIVE = otlp.AGGREGATION_TEMPORALITY_CUMULATIVE


def request(
    found: Iterable[Metric], resource: Resource, since_s: float, now_s: float
) -> ExportMetricsServiceRequest:
    """One export, of counts since `since_s`; times are wall time."""
    times = {
        "start_time_unix_nano": nanoseconds(since_s),
        "time_unix_nano": nanoseconds(now_s),
    }
    made = [_metric(metric, times) for metric in found]
    scope = otlp.ScopeMetrics(scope=SCOPE, metrics=made)
    whose = otlp.ResourceMetrics(resource=resource, scope_metrics=[scope])
    return ExportMetricsServiceRequest(resource_metrics=[whose])


def _metric(metric: Metric, times: Mapping[str, int]) -> otlp.Metric:
    made = otlp.Metric(name=metric.name, description=metric.documentation, unit=_unit(metric.name))
    if metric.type == "histogram":
        made.histogram.aggregation_temporality = CUMULATIVE
        made.histogram.data_points.extend(_histograms(metric.samples, times))
        return made
    if metric.type == "counter":
        made.sum.aggregation_temporality = CUMULATIVE
        made.sum.is_monotonic = True
    points = made.sum.data_points if metric.type == "counter" else made.gauge.data_points
    for sample in metric.samples:
        if not sample.name.endswith("_created"):
            points.add(as_double=sample.value, attributes=_labels(sample.labels), **times)
    return made


def _histograms(
    samples: Iterable[Sample], times: Mapping[str, int]
) -> Iterator[otlp.HistogramDataPoint]:
    """Samples of one series follow each other: its buckets, its count, its sum."""
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        labels = tuple(pair for pair in sample.labels.items() if pair[0] != "le")
        series.setdefault(labels, []).append(sample)
    for labels, found in series.items():
        buckets = [sample for sample in found if sample.name.endswith("_bucket")]
        bounds = [float(sample.labels["le"]) for sample in buckets]
        upto = [0, *(int(sample.value) for sample in buckets)]
        yield otlp.HistogramDataPoint(
            attributes=_labels(dict(labels)),
            count=upto[-1],
            sum=next(sample.value for sample in found if sample.name.endswith("_sum")),
            bucket_counts=[after - before for before, after in pairwise(upto)],
            explicit_bounds=[bound for bound in bounds if not math.isinf(bound)],
            exemplars=[_exemplar(sample.exemplar) for sample in buckets if sample.exemplar],
            **times,
        )


def _exemplar(found: Any) -> otlp.Exemplar:
    return otlp.Exemplar(
        as_double=found.value,
        time_unix_nano=nanoseconds(found.timestamp or 0.0),
        trace_id=bytes.fromhex(found.labels["trace_id"]),
        span_id=bytes.fromhex(found.labels["span_id"]),
    )


def _labels(labels: Mapping[str, str]) -> list[Any]:
    return [attribute(name, value) for name, value in labels.items()]


def _unit(name: str) -> str:
    """In UCUM, by the name's last word."""
    words = {"seconds": "s", "bytes": "By", "ratio": "1"}
    return words.get(name.rpartition("_")[2], "")

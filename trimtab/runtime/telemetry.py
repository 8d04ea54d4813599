"""Metrics of the catalogue as prometheus_client keeps them, bounded and fast.

Rules: only `trimtab.catalogue` names a metric; a label that has its fill of values, or a metric its
fill of series, counts what is new under OTHER. One thread, the loop's, writes; whoever renders only
reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib.metadata import version
from typing import Protocol, Self, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar, Sample

from trimtab import catalogue
from trimtab.catalogue import OTHER
from trimtab.metric import Kind, Metric
from trimtab.runtime import clock
from trimtab.runtime.otlp_settings import Otlp

SERIES_MAX = 10_000
"""Of one metric: with 500 tenants and 4 models, four ways to end for each of their pairs."""


class _Quick:
    """Finds a child in a fifth of the time, and counts in a third."""

    definition: Metric

    def labels(self, *values: object, **named: object) -> Self:
        """The child of these label values."""
        found: Self | None = self._metrics.get(values)  # type: ignore[attr-defined]
        if found is None:
            found = super().labels(*self._bounded(values), **named)  # type: ignore[misc]
        return found

    def _bounded(self, values: Sequence[object]) -> list[object]:
        known: Collection[Sequence[object]] = self._metrics  # type: ignore[attr-defined]
        full, bounded = len(known) >= SERIES_MAX, []
        for place, (label, value) in enumerate(zip(self.definition.labels, values, strict=True)):
            seen = {others[place] for others in known} if label.most and not full else ()
            beyond = full or (value not in seen and len(seen) >= label.most)
            bounded.append(OTHER if label.most and beyond else value)
        return bounded

    def _child_samples(self) -> Sequence[Sample]:
        samples: Sequence[Sample] = super()._child_samples()  # type: ignore[misc]
        return [sample for sample in samples if sample.name != "_created"]  # a third of the page


class Counter(_Quick, prometheus_client.Counter):
    """Counts."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """One more; `amount` is never negative, and nobody gives exemplars."""
        self._value._value += amount  # noqa: SLF001


class Gauge(_Quick, prometheus_client.Gauge):
    """Goes up and down."""

    def inc(self, amount: float = 1) -> None:
        """One more."""
        self._value._value += amount  # noqa: SLF001

    def dec(self, amount: float = 1) -> None:
        """One less."""
        self._value._value -= amount  # noqa: SLF001


class Histogram(_Quick, prometheus_client.Histogram):
    """Counts by size."""

    def observe(
        self, amount: float, exemplar: dict[str, str] | None = None, times: int = 1
    ) -> None:
        """One more of this size, or several."""
        self._sum._value += amount * times  # noqa: SLF001
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += times  # noqa: SLF001

    def exemplify(self, amount: float, labels: dict[str, str], at_s: float) -> None:
        """Name one of this size, which was counted before."""
        bucket = self._buckets[bisect_left(self._upper_bounds, amount)]
        bucket.set_exemplar(Exemplar(labels, amount, at_s))


Made = TypeVar("Made", Counter, Gauge, Histogram)


def counter(registry: CollectorRegistry, metric: Metric) -> Counter:
    """One that is counted where it happens."""
    return _defined(
        Counter(metric.name, metric.text, metric.label_names, registry=registry), metric
    )


def gauge(registry: CollectorRegistry, metric: Metric) -> Gauge:
    """One that is set where it changes."""
    return _defined(Gauge(metric.name, metric.text, metric.label_names, registry=registry), metric)


def histogram(registry: CollectorRegistry, metric: Metric) -> Histogram:
    """One that is measured where it happens."""
    made = Histogram(
        *(metric.name, metric.text, metric.label_names), registry=registry, buckets=metric.buckets
    )
    return _defined(made, metric)


def family(
    metric: Metric, values: Mapping[tuple[str, ...], float]
) -> CounterMetricFamily | GaugeMetricFamily:
    """One that is only read at a scrape, by the values of its labels; of states the one that is."""
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    made = kind(metric.name, metric.text, labels=metric.label_names)
    for labels, value in values.items():
        if metric.kind is Kind.STATES:
            for state in metric.labels[-1].values:
                made.add_metric((*labels[:-1], state), float(state == labels[-1]))
        else:
            made.add_metric(labels, value)
    return made


def _defined(made: Made, metric: Metric) -> Made:
    made.definition = metric
    return made


def content_type(accept: str) -> str:
    """Of what a scraper gets that accepts this."""
    return choose_encoder(accept)[1]


class ProcessMetrics:
    """What every process with a page exports: who it is, and what its system says of it."""

    def __init__(self, registry: CollectorRegistry, part: str) -> None:
        ProcessCollector(registry=registry)
        gauge(registry, catalogue.BUILD_INFO).labels(version("trimtab"), part).set(1)
        self._cert_expiry = gauge(registry, catalogue.CERT_EXPIRY)
        self._exported = counter(registry, catalogue.OTLP_EXPORTED)
        self._reloaded = gauge(registry, catalogue.CONFIG_RELOADED)
        self._reloaded_at = gauge(registry, catalogue.CONFIG_RELOADED_AT)
        self.reloaded(ok=True)

    def reloaded(self, ok: bool) -> None:
        """A configuration was taken, or not."""
        self._reloaded.set(int(ok))
        if ok:
            self._reloaded_at.set(clock.wall_s())

    def expires(self, use: str, at_s: float) -> None:
        """A certificate of ours ends then, in seconds since 1970."""
        self._cert_expiry.labels(use).set(at_s)

    def exported(self, signal: str, result: str, number: int) -> None:
        """So many of a signal went out by OTLP, or did not."""
        self._exported.labels(signal, result).inc(number)


class Measured(Protocol):
    """What a process measures."""

    registry: CollectorRegistry
    process: ProcessMetrics

    def refresh(self) -> None:
        """Look at what has a state; on the loop."""


def told(settings: Otlp | None, measured: Measured) -> AbstractAsyncContextManager[None]:
    """Have it told by OTLP, too, if that is wanted."""
    if settings is None:
        return nullcontext()
    from trimtab.runtime import otlp  # noqa: PLC0415  20 ms

    return otlp.metrics_told(settings, measured)

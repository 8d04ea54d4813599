"""Every metric that Trimtab exports, in one place.

Rules: `trimtab_` prefix, base units, bounded labels (never a key, a user, an id or a
path from outside), vLLM's own latency buckets, so that edge and engine percentiles compare.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from typing import Self

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
# vLLM 0.32, v1/metrics/buckets.py
TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
REQUEST_BUCKETS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_OUTCOMES = {
    "server_is_overloaded": "shed",
    "no_replica_available": "shed",
    "upstream_timeout": "timeout",
    "replica_lost": "replica_error",
    "replica_error": "replica_error",
    "fallback_broke": "replica_error",
}


class _Quick:
    """Finds a child in a fifth of the time, and counts in a third; a request does so eight times.

    Without its lock: one thread, the loop's, writes, and whoever renders only reads.
    """

    def labels(self, *values: object, **named: object) -> Self:
        """The child of these label values."""
        found: Self | None = self._metrics.get(values)  # type: ignore[attr-defined]
        if found is None:
            found = super().labels(*values, **named)  # type: ignore[misc]
        return found


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

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """One more of this size."""
        self._sum._value += amount  # noqa: SLF001
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += 1  # noqa: SLF001


class EdgeMetrics:
    """What an edge exports."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        self.requests = counter(
            "trimtab_edge_requests",
            "Client requests ended, by outcome: ok, client_error, client_disconnect, shed, "
            "replica_error, timeout, internal_error.",
            ["model", "outcome"],
        )
        self.requests_in_flight = gauge(
            "trimtab_edge_requests_in_flight",
            "Client requests accepted and not ended, queued ones included.",
            ["model"],
        )
        self.queue_depth = gauge(
            "trimtab_edge_queue_depth",
            "Client requests waiting for a replica.",
            ["model"],
        )
        self.queue_wait = histogram(
            "trimtab_edge_queue_wait_seconds",
            "From arrival until a replica was picked, each attempt.",
            ["model"],
            buckets=TTFT_BUCKETS_S,
        )
        self.ttft = histogram(
            "trimtab_edge_time_to_first_token_seconds",
            "From arrival until the first data of a stream was sent to the client.",
            ["model"],
            buckets=TTFT_BUCKETS_S,
        )
        self.duration = histogram(
            "trimtab_edge_request_duration_seconds",
            "From arrival until the end.",
            ["model"],
            buckets=REQUEST_BUCKETS_S,
        )
        self.attempts = counter(
            "trimtab_edge_upstream_attempts",
            "Attempts ended: ok, client, overload, soft, hard, path, unknown.",
            ["replica", "result"],
        )
        self.failovers = counter(
            "trimtab_edge_stream_failovers",
            "Streams cut after their first data, by what came of it: continued on another replica, "
            "off in the pool, inexact (see the decision record), given_up (too often or too many).",
            ["model", "result"],
        )
        self.affinity = counter(
            "trimtab_edge_affinity",
            "Attempts of requests of a known session or prompt, by where they went: home, away.",
            ["model", "went"],
        )
        self.config_revision = gauge(
            "trimtab_edge_config_revision",
            "Version of the newest push applied.",
        )
        self.connected = gauge(
            "trimtab_edge_controlplane_connected",
            "1 while the stream to the control plane is up.",
        )
        self.mode = gauge(
            "trimtab_edge_autonomy",
            "Who rules this edge's room: 0 the control plane, 1 its last word, 2 the edge itself.",
        )
        self._promises(counter)
        self._own(counter, gauge)

    def _own(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        self.access_lines_dropped = counter(
            "trimtab_edge_access_lines_dropped",
            "Lines of the access log that were dropped: too many at once, or no place for them.",
        )
        self.reload_successful = gauge(
            "trimtab_config_last_reload_successful",
            "1 unless the last reload (SIGHUP) found a configuration that could not be taken.",
        )
        self.reload_successful.set(1)

    def _promises(self, counter: Callable[..., Counter]) -> None:
        self.replays = counter(
            "trimtab_edge_replays",
            "Requests with the Idempotency-Key of an earlier one: replayed, in_use (told to come "
            "back), mismatch (the key stood for another request).",
            ["result"],
        )
        self.hedges = counter(
            "trimtab_edge_hedges",
            "Second attempts beside a late first one: won, lost, or failed.",
            ["model", "result"],
        )
        self.fallbacks = counter(
            "trimtab_edge_fallbacks",
            "Requests that the fleet would have refused and that may leave it: answered by the "
            "external API, failed there, full (too many of them at once).",
            ["model", "result"],
        )

    def finished(self, model: str, outcome: str, duration_s: float) -> None:
        """A client request ended."""
        self.requests.labels(model, outcome).inc()
        self.duration.labels(model).observe(duration_s)

    def homed(self, model: str, at_home: bool | None) -> None:
        """An attempt went to the home of its session, or not; None if it has none."""
        if at_home is not None:
            self.affinity.labels(model, "home" if at_home else "away").inc()

    def outcome_of(self, code: str) -> str:
        """The outcome that an error code means."""
        return _OUTCOMES.get(code, "client_error")

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

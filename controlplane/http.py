"""The control plane's /metrics and status page, on an address only when it is asked for.

Rules: read off the loop at each scrape, nothing is counted twice; labels are of fixed sets (kinds
of refusals and streams, `serving`), so no peer can add a series.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from controlplane.core.refusals import Kind
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from controlplane.watch import Watch
from trimtab.model import Serving
from trimtab.runtime import page, shapes, telemetry
from trimtab.runtime.page import Page

PREFIX = "trimtab_controlplane_"


@dataclass(frozen=True, slots=True)
class _Fleet(Collector):
    """One control plane's numbers."""

    seat: Seat

    def collect(self) -> Iterator[Metric]:
        """What Prometheus scrapes; who does not lead knows only that."""
        leads = self.seat.loop is not None
        yield GaugeMetricFamily(PREFIX + "leader", "1 while it leads.", value=int(leads))
        text = "1 unless the last reload (SIGHUP) found a file that could not be taken."
        taken = int(self.seat.has_newest_file)
        yield GaugeMetricFamily("trimtab_config_last_reload_successful", text, value=taken)
        if self.seat.loop is not None:
            yield from _led(self.seat.loop)


def _led(loop: ControlLoop) -> Iterator[Metric]:
    """What the leader knows."""
    text = "Messages and streams of peers that were not taken, by what was wrong."
    refused = CounterMetricFamily(PREFIX + "refused", text, labels=["kind"])
    for kind in Kind:
        refused.add_metric([kind.value], loop.refusals.counts[kind])
    yield refused
    text = "Open streams, by kind of peer."
    streams = GaugeMetricFamily(PREFIX + "streams", text, labels=["kind"])
    for peer, count in loop.streams().items():
        streams.add_metric([peer], count)
    yield streams
    text = "Replicas, by what edges may do with them."
    replicas = GaugeMetricFamily(PREFIX + "replicas", text, labels=["serving"])
    servings = loop.servings()
    for serving in (Serving.OPEN, Serving.CLOSED, Serving.LOST):
        replicas.add_metric([serving.name.lower()], servings[serving])
    yield replicas
    text = "The term that its pushes carry."
    yield GaugeMetricFamily(PREFIX + "term", text, value=loop.term)
    text = "Age of the oldest push that an edge has not acked; 0 when all have."
    yield GaugeMetricFamily(PREFIX + "push_lag_seconds", text, value=loop.push_lag_s())
    text = "Writes to the store that failed, and are tried again."
    yield CounterMetricFamily(PREFIX + "store_failures", text, value=loop.store_failures())


def render(seat: Seat) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry()
    registry.register(_Fleet(seat))
    return generate_latest(registry)


@asynccontextmanager
async def serving(address: str, seat: Seat) -> AsyncIterator[None]:
    """Serve it for the length of the block, if there is an address; raises ConfigError."""
    if not address:
        yield
        return

    async def scrape(_request: web.Request) -> web.Response:
        return web.Response(body=render(seat), headers={"content-type": telemetry.CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    async with page.serving(app, *shapes.split_address(address), Page(Watch(seat))):
        yield

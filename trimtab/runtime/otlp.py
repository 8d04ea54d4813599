"""Sends what OpenTelemetry's collectors take, OTLP by gRPC or HTTP, to one receiver.

Rules: what can't be sent is tried again for a while, then thrown away and counted; nobody waits for
it but the loop that sends, and it is said once when the receiver fails and once when it is back.
`opentelemetry-proto` (messages alone, no SDK: docs/decisions/0020) is imported by those who export.
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from trimtab.policy.dice import Dice
from trimtab.runtime import clock, otlp_metrics, otlp_spans
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.otlp_settings import Otlp
from trimtab.runtime.otlp_spans import Batch
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner
from trimtab.runtime.telemetry import Measured

TIMEOUT_S = 10.0  # OTEL_EXPORTER_OTLP_TIMEOUT's default
TRIES = 4  # of one batch; meanwhile the next one fills
BACKOFF_S = (0.5, 4.0)
OPTIONS = (("grpc.max_reconnect_backoff_ms", 5_000),)  # a receiver that is back is soon found
# What may go better next time, by https://opentelemetry.io/docs/specs/otlp
PASSING_HTTP = frozenset({429, 502, 503, 504})
PASSING_GRPC = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
Count = Callable[[str, str, int], None]
"""Hears of a signal, what became of it, and how many."""
PATHS = {"traces": "/v1/traces", "metrics": "/v1/metrics"}
ANSWERS: Mapping[str, Any] = {
    "traces": traces.ExportTraceServiceResponse,
    "metrics": metrics.ExportMetricsServiceResponse,
}
log = logging.getLogger("otlp")


class ExportError(Exception):
    """It was not taken; `passing` when it may be next time."""

    def __init__(self, text: str, *, passing: bool) -> None:
        super().__init__(text)
        self.passing = passing


class Way(Protocol):
    """Takes one export; raises ExportError."""

    async def send(self, signal: str, request: Any) -> Any:
        """What the receiver answers."""


class Exporter:
    """Tells one receiver what a process has to tell."""

    def __init__(self, way: Way, settings: Otlp, dice: Dice, count: Count) -> None:
        self._way = way
        self._resource = otlp_spans.resource(settings.resource)
        self._period_s = settings.metrics_period_s
        self._since_s = clock.wall_s()
        self._dice = dice
        self._count = count
        self._fails: set[str] = set()
        self._broken: set[str] = set()

    def batch(self) -> Batch:
        """To put spans into."""
        return Batch(self._resource)

    async def traces(self, batch: Batch) -> None:
        """Send one."""
        await self._send("traces", batch.request, len(batch))

    async def metrics_forever(self, measured: Measured) -> None:
        """All that is measured, once a period."""
        while True:
            await asyncio.sleep(self._period_s)
            await self.safely("metrics", self._metrics(measured))

    async def safely(self, signal: str, work: Awaitable[None]) -> None:
        """Do it; a bug in what makes exports must not end the process, and is told once."""
        try:
            await work
        except Exception:
            if signal not in self._broken:
                log.exception("an export could not be made", extra={"fields": {"signal": signal}})
            self._broken.add(signal)
            self._count(signal, "failed", 1)

    async def _metrics(self, measured: Measured) -> None:
        measured.refresh()
        times_s = self._since_s, clock.wall_s()
        found = measured.registry.collect()
        # as at a scrape: in a thread, because it takes tens of ms with many series
        told = partial(otlp_metrics.request, found, self._resource, *times_s)
        await self._send("metrics", await asyncio.to_thread(told), 1)

    async def _send(self, signal: str, request: Any, items: int) -> None:
        backoff = Backoff(self._dice, *BACKOFF_S)
        for left in reversed(range(TRIES)):
            try:
                answer = await self._way.send(signal, request)
            except ExportError as error:
                self._failed(signal, str(error))
                if error.passing and left:
                    await asyncio.sleep(backoff.next_s())
                    continue
                self._count(signal, "failed", items)
                return
            self._worked(signal)
            said = answer.partial_success
            refused = said.rejected_spans if signal == "traces" else said.rejected_data_points
            self._count(signal, "refused", min(refused, items))
            self._count(signal, "sent", items - min(refused, items))
            return

    def _failed(self, signal: str, text: str) -> None:
        if signal not in self._fails:
            fields = {"signal": signal, "error": text}
            log.warning("the OTLP receiver takes nothing", extra={"fields": fields})
        self._fails.add(signal)

    def _worked(self, signal: str) -> None:
        if signal in self._fails:
            log.info("the OTLP receiver works again", extra={"fields": {"signal": signal}})
        self._fails.discard(signal)


class _Grpc:
    def __init__(self, channel: grpc.aio.Channel, headers: Mapping[str, str]) -> None:
        self._stubs: dict[str, Any] = {
            "traces": TraceServiceStub(channel),  # type: ignore[no-untyped-call]
            "metrics": MetricsServiceStub(channel),  # type: ignore[no-untyped-call]
        }
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())

    async def send(self, signal: str, request: Any) -> Any:
        """By gRPC."""
        stub = self._stubs[signal]
        try:
            return await stub.Export(request, timeout=TIMEOUT_S, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            text = f"{error.code().name}: {(error.details() or '')[:200]}"
            raise ExportError(text, passing=error.code() in PASSING_GRPC) from error


class _Http:
    def __init__(self, session: aiohttp.ClientSession, settings: Otlp) -> None:
        self._session = session
        self._base = settings.endpoint.rstrip("/")
        self._headers = {**settings.headers, "content-type": "application/x-protobuf"}

    async def send(self, signal: str, request: Any) -> Any:
        """By HTTP, in binary."""
        url, body = self._base + PATHS[signal], request.SerializeToString()
        try:
            async with self._session.post(url, data=body, headers=self._headers) as answer:
                said = await answer.read()
                if answer.status != 200:
                    passing = answer.status in PASSING_HTTP
                    raise ExportError(f"HTTP {answer.status}", passing=passing)
                return ANSWERS[signal].FromString(said)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ExportError(type(error).__name__, passing=True) from error


@asynccontextmanager
async def metrics_told(settings: Otlp, measured: Measured) -> AsyncIterator[None]:
    """Tell what a process measures for as long as it runs."""
    dice, count = random.SystemRandom(), measured.process.exported
    async with connect(settings, dice, count) as exporter, TaskRunner() as runner:
        runner.forever("OTLP metrics", exporter.metrics_forever(measured))
        yield


@asynccontextmanager
async def connect(settings: Otlp, dice: Dice, count: Count) -> AsyncIterator[Exporter]:
    """For as long as a process runs; `count` hears of each signal what became of how many."""
    ca = _read(settings.ca)
    secure = urlsplit(settings.endpoint).scheme == "https"
    if settings.http:
        context = ssl.create_default_context(cadata=ca.decode() if ca else None)
        connector = aiohttp.TCPConnector(ssl=context if secure else False)
        limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
            yield Exporter(_Http(session, settings), settings, dice, count)
        return
    target = urlsplit(settings.endpoint).netloc
    if secure:
        credentials = grpc.ssl_channel_credentials(ca)
        channel = grpc.aio.secure_channel(target, credentials, options=OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(target, options=OPTIONS)
    async with channel:
        yield Exporter(_Grpc(channel, settings.headers), settings, dice, count)


def _read(ca: str) -> bytes | None:
    if not ca:
        return None
    try:
        return pathlib.Path(ca).read_bytes()
    except OSError as error:
        raise ConfigError(f"otlp.ca: cannot read {ca}: {error.strerror}") from None

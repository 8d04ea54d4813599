"""A receiver of OTLP, by gRPC or HTTP, as a collector is one: real services, and what they took."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_rpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_rpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fakes.certificates import Files


@dataclass(slots=True)
class Receiver:
    """Where it is, what it took, and with what headers."""

    url: str = ""
    traces: list[trace_pb.ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[metrics_pb.ExportMetricsServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refuses: grpc.StatusCode | None = None
    """Of each export, for as long as it is set."""
    refused: int = 0

    @property
    def spans(self) -> list[Span]:
        """In the order in which they came; without waits, which a busy machine has, too."""
        return [
            span
            for request in self.traces
            for whose in request.resource_spans
            for scope in whose.scope_spans
            for span in scope.spans
            if span.name != "queue"
        ]

    def named(self, name: str) -> list[Span]:
        """Those called so."""
        return [span for span in self.spans if span.name == name]

    def metric(self, name: str) -> Any:
        """The newest of that name."""
        found = self.metrics[-1].resource_metrics[0].scope_metrics[0].metrics
        return next(metric for metric in found if metric.name == name)

    async def take(self, request: Any, kept: list[Any], context: Any) -> None:
        """One export by gRPC."""
        if self.refuses is not None:
            self.refused += 1
            await context.abort(self.refuses, "not now")
        self.headers.append({name: str(value) for name, value in context.invocation_metadata()})
        kept.append(request)


class _Traces(trace_rpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def Export(  # noqa: N802
        self, request: Any, context: Any
    ) -> trace_pb.ExportTraceServiceResponse:
        """As in the protocol."""
        await self._receiver.take(request, self._receiver.traces, context)
        return trace_pb.ExportTraceServiceResponse()


class _Metrics(metrics_rpc.MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def Export(  # noqa: N802
        self, request: Any, context: Any
    ) -> metrics_pb.ExportMetricsServiceResponse:
        """As in the protocol."""
        await self._receiver.take(request, self._receiver.metrics, context)
        return metrics_pb.ExportMetricsServiceResponse()


@asynccontextmanager
async def grpc_receiver(files: Files | None = None, port: int = 0) -> AsyncIterator[Receiver]:
    """One by gRPC, on a free port or that one; by TLS if it has a certificate for 127.0.0.1."""
    receiver, server = Receiver(), grpc.aio.server()
    trace_rpc.add_TraceServiceServicer_to_server(_Traces(receiver), server)  # type: ignore[no-untyped-call]
    metrics_rpc.add_MetricsServiceServicer_to_server(_Metrics(receiver), server)  # type: ignore[no-untyped-call]
    if files:
        pair = files.key.read_bytes(), files.cert.read_bytes()
        port = server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    receiver.url = f"http{'s' if files else ''}://127.0.0.1:{port}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(None)


@asynccontextmanager
async def http_receiver(files: Files | None = None) -> AsyncIterator[Receiver]:
    """The same by HTTP."""
    receiver = Receiver()

    async def take(request: web.Request) -> web.Response:
        if receiver.refuses is not None:
            receiver.refused += 1
            return web.Response(status=503)
        assert request.content_type == "application/x-protobuf"
        receiver.headers.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.read()
        if request.path == "/v1/traces":
            receiver.traces.append(trace_pb.ExportTraceServiceRequest.FromString(body))
        else:
            receiver.metrics.append(metrics_pb.ExportMetricsServiceRequest.FromString(body))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    app.router.add_post("/v1/metrics", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = None
    if files:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.cert, files.key)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    receiver.url = f"http{'s' if files else ''}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()

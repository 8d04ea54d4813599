"""KEDA's ExternalScaler: how many replicas a model needs (docs/autoscaling.md).

Rules: a metric is a number of replicas and its target is 1, so that what KEDA and the autoscaler
make of it is that number; who does not lead asks the leader, because KEDA asks any of those that a
name resolves to. Who asks wrongly is told what is right. At most STREAMS_MAX streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc

from controlplane.core import autoscale
from controlplane.core.autoscale import FIRST_TOKEN_S, Demand
from controlplane.keda import externalscaler_pb2 as pb
from controlplane.keda import externalscaler_pb2_grpc
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from trimtab.runtime import clock, rpc
from trimtab.runtime.tls import Identity

NAME = pb.DESCRIPTOR.services_by_name["ExternalScaler"].full_name
METRICS: dict[str, Callable[[Demand, float], int]] = {
    "queue": autoscale.by_queue,
    "first-token": autoscale.by_first_token,
}
MODEL, OBJECTIVE = "model", "firstTokenSeconds"
LOOK_PERIOD_S = 1.0
STREAMS_MAX = 256
PATIENCE_S = 3.0
ASKED_FOR = (("trimtab-asked-for", "1"),)
"""On what one control plane asks another for KEDA: it is not passed on once more."""
Context = grpc.aio.ServicerContext[Any, Any]
Leader = externalscaler_pb2_grpc.ExternalScalerStub
register = externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server


class ScalerService(externalscaler_pb2_grpc.ExternalScalerServicer):
    """See the rules at the top of this file."""

    def __init__(self, seat: Seat, identity: Identity | None = None) -> None:
        """`identity` is ours, to ask another who leads."""
        self._seat = seat
        self._identity = identity
        self._streams = 0

    async def IsActive(  # noqa: N802 - KEDA's name
        self, request: pb.ScaledObjectRef, context: Context
    ) -> pb.IsActiveResponse:
        """See the proto."""
        async with self._leader(context) as leader:
            if leader is not None:
                return await leader.IsActive(request, metadata=ASKED_FOR)
            demand, _ = await self._demand(request, context)
            return pb.IsActiveResponse(result=demand.is_active)

    async def StreamIsActive(  # noqa: N802 - KEDA's name
        self, request: pb.ScaledObjectRef, context: Context
    ) -> AsyncIterator[pb.IsActiveResponse]:
        """See the proto."""
        if self._streams >= STREAMS_MAX:
            text = f"{STREAMS_MAX} streams are open: use the trigger's type external"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._streams += 1
        try:
            told: bool | None = None
            while True:
                is_active = (await self.IsActive(request, context)).result
                if is_active is not told:
                    told = is_active
                    yield pb.IsActiveResponse(result=told)
                await asyncio.sleep(LOOK_PERIOD_S)
        finally:
            self._streams -= 1

    async def GetMetricSpec(  # noqa: N802 - KEDA's name
        self, request: pb.ScaledObjectRef, context: Context
    ) -> pb.GetMetricSpecResponse:
        """See the proto."""
        async with self._leader(context) as leader:
            if leader is not None:
                return await leader.GetMetricSpec(request, metadata=ASKED_FOR)
            await self._demand(request, context)
        specs = (pb.MetricSpec(metricName=n, targetSize=1, targetSizeFloat=1.0) for n in METRICS)
        return pb.GetMetricSpecResponse(metricSpecs=specs)

    async def GetMetrics(  # noqa: N802 - KEDA's name
        self, request: pb.GetMetricsRequest, context: Context
    ) -> pb.GetMetricsResponse:
        """See the proto."""
        name = request.metricName
        if name not in METRICS:
            text = f"no metric is called {name[:128]!r}: there are {', '.join(METRICS)}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        async with self._leader(context) as leader:
            if leader is not None:
                return await leader.GetMetrics(request, metadata=ASKED_FOR)
            demand, first_token_s = await self._demand(request.scaledObjectRef, context)
        count = METRICS[name](demand, first_token_s)
        value = pb.MetricValue(metricName=name, metricValue=count, metricValueFloat=count)
        return pb.GetMetricsResponse(metricValues=[value])

    @contextlib.asynccontextmanager
    async def _leader(self, context: Context) -> AsyncIterator[Leader | None]:
        """Another's service, who leads; None: ours is to answer, or to refuse."""
        await self._seat.wait(context)
        target, told = self._seat.leader, context.invocation_metadata() or ()
        if self._seat.loop is not None or not target or ASKED_FOR[0] in tuple(told):
            yield None
            return
        try:
            async with rpc.channel(target, self._identity) as channel, asyncio.timeout(PATIENCE_S):
                yield externalscaler_pb2_grpc.ExternalScalerStub(channel)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")
        except TimeoutError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the leader, {target}, is silent")

    async def _demand(self, request: pb.ScaledObjectRef, context: Context) -> tuple[Demand, float]:
        """Of the model that the trigger names, and the objective."""
        loop = await self._seat.loop_or_refuse(context)
        try:
            model, first_token_s = _wish(loop, request.scalerMetadata)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return autoscale.demand(loop.registry, model, clock.now_s()), first_token_s


def _wish(loop: ControlLoop, metadata: Mapping[str, str]) -> tuple[str, float]:
    """Model and objective; raises ValueError, for people."""
    model, objective = metadata.get(MODEL, ""), metadata.get(OBJECTIVE, str(FIRST_TOKEN_S))
    pools = loop.registry.pools()
    if model not in pools:
        some = ", ".join(sorted(pools)[:20]) or "none yet"
        raise ValueError(f"metadata.{MODEL} is {model[:128]!r}; the fleet's models are: {some}")
    try:
        first_token_s = float(objective)
    except ValueError:
        first_token_s = 0.0
    if not 0.0 < first_token_s < math.inf:
        raise ValueError(f"metadata.{OBJECTIVE} is {objective[:128]!r}: give seconds, like 5")
    return model, first_token_s

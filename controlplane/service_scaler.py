"""KEDA's ExternalScaler: how many replicas a model needs (docs/autoscaling.md).

Rules: a metric is a number of replicas and its target is 1, so that what KEDA and the autoscaler
make of it is that number; only the leader answers, for it alone knows the fleet. Who asks wrongly
is told the names that are right. At most STREAMS_MAX streams.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

import grpc

from controlplane.core import autoscale
from controlplane.core.autoscale import FIRST_TOKEN_S, Demand
from controlplane.keda import externalscaler_pb2 as pb
from controlplane.keda import externalscaler_pb2_grpc
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from trimtab.runtime import clock

NAME = pb.DESCRIPTOR.services_by_name["ExternalScaler"].full_name
METRICS: dict[str, Callable[[Demand, float], int]] = {
    "queue": autoscale.by_queue,
    "first-token": autoscale.by_first_token,
}
MODEL, OBJECTIVE = "model", "firstTokenSeconds"
LOOK_PERIOD_S = 1.0
STREAMS_MAX = 256
Context = grpc.aio.ServicerContext[Any, Any]
register = externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server


class _Wish(NamedTuple):
    """What a trigger's metadata ask for."""

    model: str
    first_token_s: float


class ScalerService(externalscaler_pb2_grpc.ExternalScalerServicer):
    """See the rules at the top of this file."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._streams = 0

    async def IsActive(  # noqa: N802 - KEDA's name
        self, request: pb.ScaledObjectRef, context: Context
    ) -> pb.IsActiveResponse:
        """See the proto."""
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
                demand, _ = await self._demand(request, context)
                if demand.is_active is not told:
                    told = demand.is_active
                    yield pb.IsActiveResponse(result=told)
                await asyncio.sleep(LOOK_PERIOD_S)
        finally:
            self._streams -= 1

    async def GetMetricSpec(  # noqa: N802 - KEDA's name
        self, request: pb.ScaledObjectRef, context: Context
    ) -> pb.GetMetricSpecResponse:
        """See the proto."""
        await self._demand(request, context)
        specs = (pb.MetricSpec(metricName=n, targetSize=1, targetSizeFloat=1.0) for n in METRICS)
        return pb.GetMetricSpecResponse(metricSpecs=specs)

    async def GetMetrics(  # noqa: N802 - KEDA's name
        self, request: pb.GetMetricsRequest, context: Context
    ) -> pb.GetMetricsResponse:
        """See the proto."""
        demand, wish = await self._demand(request.scaledObjectRef, context)
        name = request.metricName
        if name not in METRICS:
            text = f"no metric is called {name[:128]!r}: there are {', '.join(METRICS)}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        count = METRICS[name](demand, wish.first_token_s)
        value = pb.MetricValue(metricName=name, metricValue=count, metricValueFloat=count)
        return pb.GetMetricsResponse(metricValues=[value])

    async def _demand(self, request: pb.ScaledObjectRef, context: Context) -> tuple[Demand, _Wish]:
        loop = await self._seat.loop_or_refuse(context)
        try:
            wish = _wish(loop, request.scalerMetadata)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return autoscale.demand(loop.registry, wish.model, clock.now_s()), wish


def _wish(loop: ControlLoop, metadata: Mapping[str, str]) -> _Wish:
    """Raises ValueError, for people."""
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
    return _Wish(model, first_token_s)

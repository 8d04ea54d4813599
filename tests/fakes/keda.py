"""KEDA's side of a scaler: what its pkg/scalers/external_scaler.go asks, in that order."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping

import grpc

from controlplane.keda import externalscaler_pb2 as pb
from controlplane.keda import externalscaler_pb2_grpc

INDEX = "s0-"
TOLERANCE = 0.1
"""The autoscaler's: a tenth more or less is left as it is."""


class Keda:
    """One ScaledObject with one external trigger."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Mapping[str, str]) -> None:
        self._stub = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        # KEDA passes all of a trigger's metadata on, its own address too
        given = {"scalerAddress": "controlplane:7443", **metadata}
        self._about = pb.ScaledObjectRef(name="vllm", namespace="lab", scalerMetadata=given)

    async def targets(self) -> dict[str, float]:
        """GetMetricSpecForScaling: by the names under which the autoscaler knows them."""
        answer = await self._stub.GetMetricSpec(self._about)
        return {
            INDEX + spec.metricName: spec.targetSizeFloat or float(spec.targetSize)
            for spec in answer.metricSpecs
        }

    async def metric(self, name: str) -> tuple[float, bool]:
        """GetMetricsAndActivity: the value, then whether it is active."""
        request = pb.GetMetricsRequest(
            scaledObjectRef=self._about, metricName=name.removeprefix(INDEX)
        )
        answer = await self._stub.GetMetrics(request)
        (value,) = [one.metricValueFloat or float(one.metricValue) for one in answer.metricValues]
        return value, (await self._stub.IsActive(self._about)).result

    async def replicas(self, current: int) -> int:
        """What the autoscaler makes of it: the most that a metric asks for (AverageValue)."""
        wanted = []
        for name, target in (await self.targets()).items():
            value, _ = await self.metric(name)
            ratio = value / (target * current) if current else math.inf
            steady = abs(ratio - 1.0) <= TOLERANCE
            wanted.append(current if steady else math.ceil(value / target))
        return max(wanted)

    async def activity(self) -> AsyncIterator[bool]:
        """The push scaler's stream."""
        async for answer in self._stub.StreamIsActive(self._about):
            yield answer.result

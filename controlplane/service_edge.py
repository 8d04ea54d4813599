"""EdgeService: pushes to edges; acks and reports to the loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from controlplane.loop import ControlLoop
from controlplane.streams import EdgeStream
from trimtab.codec import WireError, decode_body, encode_update
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import edge_pb2, edge_pb2_grpc

NAME = edge_pb2.DESCRIPTOR.services_by_name["EdgeService"].full_name
Messages = AsyncIterator[edge_pb2.EdgeMessage]
Context = grpc.aio.ServicerContext[Any, Any]


class EdgeService(edge_pb2_grpc.EdgeServiceServicer):
    """One call of `Watch` is one edge for as long as both live."""

    def __init__(self, loop: ControlLoop) -> None:
        self._loop = loop

    async def Watch(  # type: ignore[override]  # noqa: N802 - a coroutine that writes: reads and writes overlap
        self,
        request_iterator: Messages,
        context: Context,
    ) -> None:
        """See the proto."""
        stream = self._loop.open_edge()
        try:
            async with TaskRunner() as runner:
                runner.forever("edge writer", self._write(stream, context))
                runner.forever("edge end", stream.abort_when_ended(context))
                async for message in request_iterator:
                    self._take(stream, message)
        finally:
            self._loop.edge_gone(stream)

    def _take(self, stream: EdgeStream, message: edge_pb2.EdgeMessage) -> None:
        try:
            body = decode_body(message)
        except WireError as error:
            stream.end(str(error), grpc.StatusCode.INVALID_ARGUMENT)
            return
        if body is not None:
            self._loop.edge_said(stream, body)

    async def _write(self, stream: EdgeStream, context: Context) -> None:
        while True:
            await stream.wake.wait()
            stream.wake.clear()
            for update in self._loop.updates(stream):
                await context.write(encode_update(update, self._loop.parts))

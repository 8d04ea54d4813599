"""EdgeService: pushes to edges; acks and reports to the loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from controlplane.core.refusals import Kind
from controlplane.guard import must_be
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from controlplane.streams import EdgeStream, host
from trimtab.codec import WireError, decode_body
from trimtab.model import EdgeHello
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import edge_pb2

NAME = edge_pb2.DESCRIPTOR.services_by_name["EdgeService"].full_name
Messages = AsyncIterator[edge_pb2.EdgeMessage]
Context = grpc.aio.ServicerContext[Any, Any]


def register(service: EdgeService, server: grpc.aio.Server) -> None:
    """As generated code would, but pushes are bytes already: much of them is the same for all."""
    watch: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        service.watch, edge_pb2.EdgeMessage.FromString
    )
    handlers = grpc.method_handlers_generic_handler(NAME, {"Watch": watch})
    server.add_generic_rpc_handlers((handlers,))


class EdgeService:
    """One call of `Watch` is one edge for as long as both live."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def watch(self, request_iterator: Messages, context: Context) -> None:
        """See the proto; a coroutine that writes, so that reads and writes overlap."""
        loop = await self._seat.loop_or_refuse(context)
        stream = loop.open_edge(host(context.peer()))
        try:
            async with TaskRunner() as runner:
                runner.forever("edge writer", _write(loop, stream, context))
                runner.forever("edge end", stream.abort_when_ended(context))
                async for message in request_iterator:
                    if await stream.pace():
                        loop.refused(stream.peer, Kind.FLOOD, "an edge is read more slowly")
                    _take(loop, stream, message)
        finally:
            loop.edge_gone(stream)


def _take(loop: ControlLoop, stream: EdgeStream, message: edge_pb2.EdgeMessage) -> None:
    if message.HasField("edge_answer"):
        loop.questions.take(stream, message.edge_answer)
        return
    try:
        body = decode_body(message)
    except WireError as error:
        loop.refused(stream.peer, Kind.MESSAGE, str(error))
        stream.end(str(error), grpc.StatusCode.INVALID_ARGUMENT)
        return
    if isinstance(body, EdgeHello) and (problem := must_be(body.edge)):
        loop.refused(stream.peer, Kind.CLAIM, problem)
        stream.end(problem, grpc.StatusCode.PERMISSION_DENIED)
    elif body is not None:
        loop.edge_said(stream, body)


async def _write(loop: ControlLoop, stream: EdgeStream, context: Context) -> None:
    while True:
        await stream.wake.wait()
        stream.wake.clear()
        for update in loop.updates(stream):
            await context.write(loop.parts.update(update))
        while stream.questions:
            asked = edge_pb2.EdgeUpdate(reads_steady=True, question=stream.questions.pop(0))
            await context.write(asked.SerializeToString())

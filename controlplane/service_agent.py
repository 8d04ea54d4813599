"""AgentService: agents' streams to the loop and directives back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from controlplane.guard import must_be
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from controlplane.streams import AgentStream
from trimtab.codec import WireError, decode_body, encode_body
from trimtab.model import NodeHello, Refused
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import agent_pb2, agent_pb2_grpc

NAME = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name
Messages = AsyncIterator[agent_pb2.AgentMessage]
Context = grpc.aio.ServicerContext[Any, Any]


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """One call of `Report` is one agent for as long as both live."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def Report(  # type: ignore[override]  # noqa: N802 - a coroutine that writes: reads and writes overlap
        self,
        request_iterator: Messages,
        context: Context,
    ) -> None:
        """See the proto."""
        loop = await self._seat.loop_or_refuse(context)
        stream = loop.open_agent()
        try:
            async with TaskRunner() as runner:
                runner.forever("agent writer", _write(stream, context))
                runner.forever("agent end", stream.abort_when_ended(context))
                async for message in request_iterator:
                    _take(loop, stream, message)
        finally:
            loop.agent_gone(stream)


def _take(loop: ControlLoop, stream: AgentStream, message: agent_pb2.AgentMessage) -> None:
    try:
        body = decode_body(message)
    except WireError as error:
        stream.tell(Refused(str(error)))
        return
    if isinstance(body, NodeHello) and (problem := must_be(body.node)):
        stream.end(problem, grpc.StatusCode.PERMISSION_DENIED)
    elif body is not None:
        loop.agent_said(stream, body)


async def _write(stream: AgentStream, context: Context) -> None:
    while True:
        directive = await stream.outbox.get()
        await context.write(encode_body(agent_pb2.AgentDirective, directive))

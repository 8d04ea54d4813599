"""AgentService: agents' streams to the loop and directives back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from controlplane.core.refusals import Kind
from controlplane.guard import must_be
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from controlplane.streams import AgentStream, host
from trimtab.codec import WireError, decode_body, encode_body
from trimtab.model import NodeHello, Refused
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import agent_pb2, agent_pb2_grpc

NAME = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name
MESSAGE_LIMIT_BYTES = 1024 * 1024
"""A report on 64 engines and 64 GPUs, with all their texts at their limits, is half of it."""
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
        stream = loop.open_agent(host(context.peer()))
        try:
            async with TaskRunner() as runner:
                runner.forever("agent writer", _write(stream, context))
                runner.forever("agent end", stream.abort_when_ended(context))
                async for message in request_iterator:
                    if await stream.pace():
                        loop.refused(stream.peer, Kind.FLOOD, "an agent is read more slowly")
                    _take(loop, stream, message)
        finally:
            loop.agent_gone(stream)


def _take(loop: ControlLoop, stream: AgentStream, message: agent_pb2.AgentMessage) -> None:
    if (size_bytes := message.ByteSize()) > MESSAGE_LIMIT_BYTES:
        text = f"a message of {size_bytes} bytes; at most {MESSAGE_LIMIT_BYTES}"
        loop.refused(stream.peer, Kind.SIZE, text)
        stream.tell(Refused(text))
        return
    try:
        body = decode_body(message)
    except WireError as error:
        loop.refused(stream.peer, Kind.MESSAGE, str(error))
        stream.tell(Refused(str(error)))
        return
    if isinstance(body, NodeHello) and (problem := must_be(body.node)):
        loop.refused(stream.peer, Kind.CLAIM, problem)
        stream.end(problem, grpc.StatusCode.PERMISSION_DENIED)
    elif body is not None:
        loop.agent_said(stream, body)


async def _write(stream: AgentStream, context: Context) -> None:
    while True:
        directive = await stream.outbox.get()
        await context.write(encode_body(agent_pb2.AgentDirective, directive))

"""AgentService: agents' streams to the loop and directives back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from controlplane.core.refusals import Kind
from controlplane.loop import ControlLoop
from controlplane.streams import AgentStream, host
from trimtab.codec import WireError, decode_body, encode_body
from trimtab.model import Refused
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import agent_pb2, agent_pb2_grpc

NAME = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name
MESSAGE_LIMIT_BYTES = 1024 * 1024
"""A report on 64 engines and 64 GPUs, with all their texts at their limits, is half of it."""
Messages = AsyncIterator[agent_pb2.AgentMessage]
Context = grpc.aio.ServicerContext[Any, Any]


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """One call of `Report` is one agent for as long as both live."""

    def __init__(self, loop: ControlLoop) -> None:
        self._loop = loop

    async def Report(  # type: ignore[override]  # noqa: N802 - a coroutine that writes: reads and writes overlap
        self,
        request_iterator: Messages,
        context: Context,
    ) -> None:
        """See the proto."""
        stream = self._loop.open_agent(host(context.peer()))
        try:
            async with TaskRunner() as runner:
                runner.forever("agent writer", _write(stream, context))
                runner.forever("agent end", stream.abort_when_ended(context))
                async for message in request_iterator:
                    if await stream.pace():
                        self._loop.refused(stream.peer, Kind.FLOOD, "an agent is read more slowly")
                    self._take(stream, message)
        finally:
            self._loop.agent_gone(stream)

    def _take(self, stream: AgentStream, message: agent_pb2.AgentMessage) -> None:
        if (size_bytes := message.ByteSize()) > MESSAGE_LIMIT_BYTES:
            text = f"a message of {size_bytes} bytes; at most {MESSAGE_LIMIT_BYTES}"
            self._loop.refused(stream.peer, Kind.SIZE, text)
            stream.tell(Refused(text))
            return
        try:
            body = decode_body(message)
        except WireError as error:
            self._loop.refused(stream.peer, Kind.MESSAGE, str(error))
            stream.tell(Refused(str(error)))
            return
        if body is not None:
            self._loop.agent_said(stream, body)


async def _write(stream: AgentStream, context: Context) -> None:
    while True:
        directive = await stream.outbox.get()
        await context.write(encode_body(agent_pb2.AgentDirective, directive))

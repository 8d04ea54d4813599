"""A control plane that takes what agents say, keeps it, and tells them what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc

from trimtab import codec
from trimtab.model import AgentDirective, EngineFacts, EngineSample, Report
from trimtab.runtime import rpc
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import agent_pb2, agent_pb2_grpc

T = TypeVar("T")
AGENT_SERVICE = "trimtab.v1.AgentService"


class FakeControlPlane(agent_pb2_grpc.AgentServiceServicer):
    """Records every message of every stream; directives go to the newest stream."""

    def __init__(self) -> None:
        self.listens = asyncio.Event()
        """Clear it and nothing more is read off the streams."""
        self.listens.set()
        self.messages: list[Any] = []
        self.streams = 0
        self._directives: asyncio.Queue[AgentDirective] = asyncio.Queue()

    async def start(self, address: str) -> grpc.aio.Server:
        """Listen."""

        def register(server: grpc.aio.Server) -> None:
            agent_pb2_grpc.add_AgentServiceServicer_to_server(self, server)

        return await rpc.serve(address, [AGENT_SERVICE], register)

    def tell(self, directive: AgentDirective) -> None:
        """Send a directive."""
        self._directives.put_nowait(directive)

    def all(self, kind: type[T]) -> list[T]:
        """What was said of one kind, oldest first."""
        return [message for message in self.messages if isinstance(message, kind)]

    def samples(self, replica: str) -> list[EngineSample]:
        """A replica's samples, oldest first."""
        return [s for r in self.all(Report) for s in r.engines if s.replica == replica]

    def facts(self, replica: str) -> EngineFacts | None:
        """A replica's newest facts."""
        return next((f for f in reversed(self.all(EngineFacts)) if f.replica == replica), None)

    async def Report(  # noqa: N802  # the contract's name
        self,
        request_iterator: AsyncIterator[agent_pb2.AgentMessage],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[agent_pb2.AgentDirective]:
        """One agent's stream."""
        self.streams += 1
        async with TaskRunner() as tasks:
            listening = tasks.once("listen", self._listen(request_iterator))
            while not listening.done():
                waiting = tasks.once("directive", self._directives.get())
                await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    yield codec.encode_body(agent_pb2.AgentDirective, waiting.result())
                else:
                    waiting.cancel()

    async def _listen(self, messages: AsyncIterator[agent_pb2.AgentMessage]) -> None:
        async for message in messages:
            await self.listens.wait()
            self.messages.append(codec.decode_body(message))

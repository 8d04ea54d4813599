"""The open streams as the loop and the servicers share them.

Rules: a stream has a number of its own for ever; whoever wants it closed calls `end`, and the
servicer closes it; an agent that reads nothing loses the newest directives, never our memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from controlplane.core.subscription import Differences, Subscription
from trimtab.model import AgentDirective, EdgeHello

OUTBOX_LIMIT = 64


class Stream:
    """One connection and how it ends."""

    def __init__(self, number: int, opened_at_s: float) -> None:
        self.number = number
        self.opened_at_s = opened_at_s
        self.introduced = False
        self._ended = asyncio.Event()
        self.reason = ""  # why it ends; empty while it lives
        self._code = grpc.StatusCode.FAILED_PRECONDITION

    def end(self, reason: str, code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION) -> None:
        """Close it with these words; the first call counts."""
        if not self._ended.is_set():
            self.reason, self._code = reason, code
            self._ended.set()

    async def abort_when_ended(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Close the RPC once someone has called `end`."""
        await self._ended.wait()
        await context.abort(self._code, self.reason)


class AgentStream(Stream):
    """An agent's, with what it is to be told."""

    def __init__(self, number: int, opened_at_s: float) -> None:
        super().__init__(number, opened_at_s)
        self.outbox: asyncio.Queue[AgentDirective] = asyncio.Queue(OUTBOX_LIMIT)

    def tell(self, directive: AgentDirective) -> bool:
        """Queue a directive; False when the agent doesn't read."""
        if self.outbox.full():
            return False
        self.outbox.put_nowait(directive)
        return True


class EdgeStream(Stream):
    """An edge's, with what it was sent; `wake` is set when there may be more."""

    def __init__(self, number: int, opened_at_s: float, differences: Differences) -> None:
        super().__init__(number, opened_at_s)
        self.subscription = Subscription(differences)
        self.hello: EdgeHello | None = None
        self.wake = asyncio.Event()

"""The open streams as the loop and the servicers share them.

Rules: a stream has a number of its own for ever; whoever wants it closed calls `end`, and the
servicer closes it; an agent that reads nothing loses the newest directives, never our memory;
one that sends faster than MESSAGES_PER_S is read that fast and no faster.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import Any

import grpc

from controlplane.core.subscription import Differences, Subscription
from trimtab.model import AgentDirective, EdgeHello
from trimtab.runtime import clock
from trimtab.v1.question_pb2 import EdgeQuestion

OUTBOX_LIMIT = 64
MESSAGES_PER_S = 100.0  # ten times the fastest agent's reports
BURST_MESSAGES = 600.0  # a stream's beginning with the facts of 64 engines, and a late pile


class Stream:
    """One connection and how it ends."""

    def __init__(self, number: int, opened_at_s: float) -> None:
        self.number = number
        self.peer = ""  # the host it comes from
        self._allowance, self._spent_s = BURST_MESSAGES, opened_at_s
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

    async def pace(self) -> bool:
        """Read no faster than MESSAGES_PER_S: the rest waits in the peer. True when it had to."""
        now_s = clock.now_s()
        gained = (now_s - self._spent_s) * MESSAGES_PER_S
        self._allowance = min(BURST_MESSAGES, self._allowance + gained) - 1
        self._spent_s = now_s
        if self._allowance >= 0:
            return False
        await asyncio.sleep(-self._allowance / MESSAGES_PER_S)
        return True

    async def abort_when_ended(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Close the RPC once someone has called `end`."""
        await self._ended.wait()
        await context.abort(self._code, self.reason)


def host(peer: str) -> str:
    """The host of a gRPC peer, without the port, which is another one each time."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    return f"{kind}:{rest.rpartition(':')[0]}" if kind in {"ipv4", "ipv6"} else kind


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
        self.questions: list[EdgeQuestion] = []
        """Not sent yet; bounded by the questions that may be open."""
        self.wake = asyncio.Event()

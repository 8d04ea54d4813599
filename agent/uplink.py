"""The stream to the control plane: hello, facts, reports up; directives down.

Rules: a report is made when it is sent, so a slow or lost stream never carries old ones; whoever
listens hears hello and all facts first; losing the stream stops no measuring; whoever does not lead
names the leader (runtime/targets), other reconnects back off with jitter; the ups and downs are
logged once each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import grpc

from trimtab import codec
from trimtab.directives import Restarted
from trimtab.facts import NodeFacts
from trimtab.model import AgentDirective, AgentMessage, Bye, EngineFacts, ProbeResult, Report
from trimtab.policy.dice import Dice
from trimtab.runtime import clock, rpc
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.targets import Targets, leader_named
from trimtab.runtime.tasks import TaskRunner
from trimtab.runtime.tls import Identity
from trimtab.v1 import agent_pb2, agent_pb2_grpc

MESSAGES_LIMIT = 256
"""Facts and probe results that wait; more than the engines of a node can cause at once."""
GOOD_STREAM_S = 5.0
"""A stream that lived this long was a success: the next attempt is quick."""
BYE_TIMEOUT_S = 1.0
log = logging.getLogger("agent.uplink")
Aside = EngineFacts | ProbeResult | NodeFacts | Restarted
Stream = grpc.aio.StreamStreamCall[agent_pb2.AgentMessage, agent_pb2.AgentDirective]


class Source(Protocol):
    """What the agent has to say, and who takes what it is told."""

    def opening(self) -> Sequence[AgentMessage]:
        """What a new listener must hear first."""

    def report(self) -> Report:
        """The reading to send now."""

    def take(self, directive: AgentDirective) -> None:
        """Do as told, without waiting."""


class Uplink:
    """Keeps one stream to the control plane."""

    def __init__(self, targets: str, dice: Dice, identity: Identity | None = None) -> None:
        """`targets` is a list as in the configuration."""
        self._targets = Targets(targets)
        self._identity = identity
        self._backoff = Backoff(dice)
        self._messages: deque[Aside] = deque(maxlen=MESSAGES_LIMIT)
        self._report_due = False
        self._bye: Bye | None = None
        self._wake = asyncio.Event()
        self._parted = asyncio.Event()
        self._state = ""

    def report_due(self) -> None:
        """It is time for a report."""
        self._report_due = True
        self._wake.set()

    def send(self, message: Aside) -> None:
        """Send beside the reports; dropped when nobody listens."""
        self._messages.append(message)
        self._wake.set()

    async def run(self, source: Source) -> None:
        """For ever: connect, talk, lose the stream, back off."""
        while True:
            began_s = clock.now_s()
            detail, leader = await self._talk(source)
            tried_s = clock.now_s() - began_s
            if tried_s >= GOOD_STREAM_S:
                self._targets.served()
                self._backoff.reset()
                tried_s = 0.0
            if self._targets.move(leader):
                self._state = ""  # it was not the leader that we talked to
                continue
            self._tell("control plane lost", detail)
            await asyncio.sleep(self._backoff.next_s(tried_s))

    async def close(self, reason: str) -> None:
        """Say goodbye, if somebody listens."""
        self._bye = Bye(reason)
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BYE_TIMEOUT_S):
                await self._parted.wait()

    async def _talk(self, source: Source) -> tuple[str, str | None]:
        """One stream to its end; why it ended, and the leader that was named."""
        async with rpc.channel(self._targets.current, self._identity) as channel:
            stub = agent_pb2_grpc.AgentServiceStub(channel)
            stream = stub.Report(metadata=self._targets.metadata)
            try:
                async with TaskRunner() as tasks:
                    tasks.forever("agent.uplink.write", self._write(stream, source))
                    await self._read(stream, source)
            except grpc.aio.AioRpcError as error:
                return rpc.explain(error), leader_named(error)
            except asyncio.InvalidStateError:  # a write to a stream that just ended
                pass
            finally:
                stream.cancel()
        return "it ended the stream", None

    async def _write(self, stream: Stream, source: Source) -> None:
        self._messages.clear()
        for message in source.opening():
            await _send(stream, message)
        self._tell("control plane connected", self._targets.current)
        while self._bye is None:
            await self._wake.wait()
            self._wake.clear()
            while self._messages:
                await _send(stream, self._messages.popleft())
            if self._report_due:
                self._report_due = False
                await _send(stream, source.report())
        await _send(stream, self._bye)
        await stream.done_writing()
        self._parted.set()
        await asyncio.Event().wait()  # the other side ends the stream, or our end does

    async def _read(self, stream: Stream, source: Source) -> None:
        async for message in stream:
            try:
                directive = codec.decode_body(message)
            except codec.WireError as error:
                log.warning("bad directive", extra={"fields": {"detail": str(error)}})
                continue
            if directive is not None:
                source.take(directive)

    def _tell(self, state: str, detail: str) -> None:
        if state != self._state:
            self._state = state
            log.info(state, extra={"fields": {"detail": detail}})


async def _send(stream: Stream, message: AgentMessage) -> None:
    await stream.write(codec.encode_body(agent_pb2.AgentMessage, message))

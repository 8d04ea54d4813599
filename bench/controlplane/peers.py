"""Agents and edges as gRPC clients, each with a connection of its own, all in this process.

Rules: they speak at their period from the start, spread evenly; an edge's report is made anew every
RENEW_EVERY reports and repeated in between, and pushes are read without the codec: this process
has one core too. Whatever ends a stream or is refused is kept in the log.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from bench.controlplane import said
from bench.controlplane.said import PERIOD_S, Engine
from trimtab.codec import decode_body, encode_body
from trimtab.model import (
    Ack,
    AgentMessage,
    EdgeHello,
    EngineState,
    NodeHello,
    Probe,
    ProbeResult,
    Refused,
    Serving,
)
from trimtab.runtime import rpc
from trimtab.runtime.clock import now_s
from trimtab.v1 import agent_pb2, agent_pb2_grpc, edge_pb2

RENEW_EVERY = 10
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
WATCH = "/trimtab.v1.EdgeService/Watch"


@dataclass(slots=True)
class Log:
    """What all peers saw."""

    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    received_bytes: Counter[str] = field(default_factory=Counter)
    credits_gaps_s: list[float] = field(default_factory=list)
    waited_for: dict[tuple[str, int], float] = field(default_factory=dict)
    """When a decision was caused, by replica and what edges are to be told."""
    latencies_s: dict[int, list[float]] = field(default_factory=dict)
    """From the cause to an edge, by what it is told."""
    faults: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Begin to measure."""
        for counts in (self.sent, self.received, self.received_bytes):
            counts.clear()
        self.credits_gaps_s.clear()


class Agent:
    """One agent with one engine."""

    def __init__(self, engine: Engine, log: Log) -> None:
        self.engine = engine
        self._log = log
        self._returns = False
        self._writing = asyncio.Lock()
        self._call: Any = None

    async def run(self, target: str, start_s: float) -> None:
        """Speak until cancelled."""
        await asyncio.sleep(start_s)
        async with _channel(target) as channel:
            self._call = agent_pb2_grpc.AgentServiceStub(channel).Report()
            await self._say(NodeHello(self.engine.node, "bench", self.engine.node))
            await self._say(self.engine.facts())
            try:
                await asyncio.gather(self._read(), _periodically(self.report))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                self._log.faults.append(f"{self.engine.node}: {error!r:.200}")

    async def report(self) -> None:
        """Say how it is, now."""
        await self._say(self.engine.report())

    async def turn(self, state: EngineState) -> None:
        """Its engine died, or another start of it is ready."""
        self.engine.state = state
        if state is EngineState.READY:
            self.engine.epoch += 1
            self._returns = True
            await self._say(self.engine.facts())
        else:
            self._log.waited_for[self.engine.replica, Serving.LOST] = now_s()
        await self.report()

    async def _read(self) -> None:
        async for message in self._call:
            directive = decode_body(message)
            if isinstance(directive, Refused):
                self._log.faults.append(f"{self.engine.node}: {directive.reason}")
            if isinstance(directive, Probe):
                if self._returns:  # later ones are about how much it may have
                    self._log.waited_for[self.engine.replica, Serving.OPEN] = now_s()
                    self._returns = False
                await self._say(ProbeResult(directive.probe_id, directive.replica, ok=True))

    async def _say(self, message: AgentMessage) -> None:
        self._log.sent[type(message).__name__] += 1
        async with self._writing:
            await self._call.write(encode_body(agent_pb2.AgentMessage, message))


class Edge:
    """One edge: acks, remembers its credits, reports that it uses them."""

    def __init__(self, name: str, dice: random.Random, log: Log) -> None:
        self.name = name
        self._dice = dice
        self._log = log
        self._slots: dict[str, int] = {}
        self._seen: set[tuple[str, int, float]] = set()
        self._told_s: float | None = None
        self._seq = dice.randrange(RENEW_EVERY)
        self._report = b""
        self._writing = asyncio.Lock()
        self._call: Any = None

    async def run(self, target: str, start_s: float) -> None:
        """Watch until cancelled."""
        await asyncio.sleep(start_s)
        async with _channel(target) as channel:
            self._call = channel.stream_stream(WATCH)()  # bytes in and out
            hello = EdgeHello(self.name, "bench", self.name, "http://127.0.0.1:4000")
            await self._say(encode_body(edge_pb2.EdgeMessage, hello).SerializeToString())
            try:
                await asyncio.gather(self._read(), _periodically(self._tell))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                self._log.faults.append(f"{self.name}: {error!r:.200}")

    async def _tell(self) -> None:
        self._seq += 1
        if not self._report or self._seq % RENEW_EVERY == 0:
            report = said.edge_report(0, self._slots, self._dice)
            self._report = encode_body(edge_pb2.EdgeMessage, report).SerializeToString()
        seq = edge_pb2.EdgeMessage(edge_report=edge_pb2.EdgeReport(seq=self._seq))
        self._log.sent["EdgeReport"] += 1
        await self._say(self._report + seq.SerializeToString())  # bytes appended are merged

    async def _read(self) -> None:
        async for content in self._call:
            at_s = now_s()
            update = edge_pb2.EdgeUpdate.FromString(content)
            kind = update.WhichOneof("body") or "nothing"
            self._log.received[kind] += 1
            self._log.received_bytes[kind] += len(content)
            if kind == "credits":
                self._take_credits(update.credits, at_s)
            for route in (*update.snapshot.routes, *update.delta.routes):
                self._note(route.replica, route.serving, at_s)
            self._log.sent["Ack"] += 1
            ack = encode_body(edge_pb2.EdgeMessage, Ack(update.nonce))
            await self._say(ack.SerializeToString())

    def _note(self, replica: str, serving: int, at_s: float) -> None:
        caused_s = self._log.waited_for.get((replica, serving))
        if caused_s is not None and (replica, serving, caused_s) not in self._seen:
            self._seen.add((replica, serving, caused_s))
            self._log.latencies_s.setdefault(serving, []).append(at_s - caused_s)

    def _take_credits(self, credits_: edge_pb2.Credits, at_s: float) -> None:
        if self._told_s is not None:
            self._log.credits_gaps_s.append(at_s - self._told_s)
        self._told_s = at_s
        if self._seq % RENEW_EVERY == RENEW_EVERY - 1 or not self._slots:
            self._slots = {credit.replica: credit.slots for credit in credits_.credits}

    async def _say(self, content: bytes) -> None:
        async with self._writing:
            await self._call.write(content)


async def _periodically(act: Callable[[], Any]) -> None:
    due_s = now_s()
    while True:
        await act()
        due_s = max(due_s + PERIOD_S, now_s())
        await asyncio.sleep(due_s - now_s())


@asynccontextmanager
async def _channel(target: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(target, options=(*rpc.OPTIONS, OWN_CONNECTION)) as opened:
        yield opened

"""An agent and an edge that speak to a real control plane, as simple as they can be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from edge.questions import Teller, answers
from tests.fakes.wait import until
from trimtab.codec import decode_body, decode_update, encode_body
from trimtab.model import (
    Ack,
    AgentDirective,
    AgentMessage,
    Bye,
    Credits,
    Delta,
    EdgeHello,
    EdgeReport,
    EdgeUpdate,
    EngineFacts,
    EngineSample,
    EngineState,
    LimitSource,
    NodeHello,
    PoolUse,
    Probe,
    ProbeResult,
    ReplicaUse,
    Report,
    Serving,
    Snapshot,
)
from trimtab.policy.delta import patch
from trimtab.runtime import rpc
from trimtab.runtime.tasks import TaskRunner
from trimtab.runtime.tls import Identity
from trimtab.v1 import agent_pb2, agent_pb2_grpc, edge_pb2, edge_pb2_grpc
from trimtab.v1.question_pb2 import EdgeQuestion


def facts(replica: str = "r1", **changes: Any) -> EngineFacts:
    """Facts of a plain engine."""
    values: dict[str, Any] = {
        "url": f"http://127.0.0.1:8000/{replica}",
        "served_models": ("m",),
        "max_model_len_tokens": 4096,
        "max_num_seqs": 16,
        "max_num_seqs_source": LimitSource.CONFIG,
        "epoch": 1,
    }
    return EngineFacts(replica=replica, **{**values, **changes})


def sample(
    replica: str = "r1", state: EngineState = EngineState.READY, **changes: Any
) -> EngineSample:
    """A sample of an idle engine."""
    return EngineSample(replica=replica, state=state, **{"epoch": 1, **changes})


class InTurn:
    """A call that several tasks write to: gRPC takes one message at a time."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._turn = asyncio.Lock()

    async def write(self, message: Any) -> None:
        """Send when it's our turn."""
        async with self._turn:
            await self._call.write(message)

    def __aiter__(self) -> Any:
        return aiter(self._call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


@dataclass
class FakeAgent:
    """One agent's stream."""

    call: Any
    directives: list[AgentDirective] = field(default_factory=list)
    error: grpc.aio.AioRpcError | None = None
    seq: int = 0
    samples: tuple[EngineSample, ...] = ()
    """Of the next reports. To cancel a task that is writing would end the whole call."""
    probes_end: bool | None = None
    """How it says that probes ended; None: it does not answer them."""

    async def say(self, message: AgentMessage) -> None:
        """Send anything."""
        await self.call.write(encode_body(agent_pb2.AgentMessage, message))

    async def report(self, *samples: EngineSample) -> None:
        """Send a report."""
        self.seq += 1
        await self.say(Report(self.seq, tuple(samples)))

    async def keep_reporting(self, *samples: EngineSample) -> None:
        """Send the same report, or then `samples`, until cancelled, as often as an agent does."""
        self.samples = samples
        while True:
            await self.report(*self.samples)
            await asyncio.sleep(0.5)

    async def serve(self, *replicas: str) -> None:
        """Facts and a READY report of each."""
        for replica in replicas:
            await self.say(facts(replica))
        await self.report(*(sample(replica) for replica in replicas))

    async def leave(self) -> None:
        """Say goodbye."""
        await self.say(Bye("test over"))

    async def follow(self) -> None:
        """Collect what comes until the stream ends."""
        try:
            async for message in self.call:
                body = decode_body(message)
                assert body is not None
                self.directives.append(body)
                if isinstance(body, Probe) and self.probes_end is not None:
                    await self.say(ProbeResult(body.probe_id, body.replica, self.probes_end))
        except grpc.aio.AioRpcError as error:
            self.error = error


@dataclass
class FakeEdge:
    """One edge's stream; `acks` and `refusal` say how it answers."""

    call: Any
    acks: bool = True
    refusal: str = ""
    updates: list[EdgeUpdate] = field(default_factory=list)
    snapshot: Snapshot = field(default_factory=Snapshot)
    credits: Credits = field(default_factory=Credits)
    questions: list[EdgeQuestion] = field(default_factory=list)
    tellers: dict[str, Teller] = field(default_factory=dict)
    """How it answers them."""
    is_older: bool = False
    """It knows of no questions."""
    error: grpc.aio.AioRpcError | None = None
    seq: int = 0

    async def tell(self, question: EdgeQuestion) -> None:
        """Answer a question, or ack what an older edge doesn't know."""
        self.questions.append(question)
        if self.is_older:
            await self.call.write(encode_body(edge_pb2.EdgeMessage, Ack(0)))
            return
        for part in answers(self.tellers, question):
            await self.call.write(edge_pb2.EdgeMessage(edge_answer=part))

    async def answer(self, update: EdgeUpdate, error: str = "") -> None:
        """Ack or nack."""
        message = encode_body(edge_pb2.EdgeMessage, Ack(update.nonce, error))
        await self.call.write(message)

    async def report(
        self, replicas: Sequence[ReplicaUse] = (), pools: Sequence[PoolUse] = ()
    ) -> None:
        """Say what it does."""
        self.seq += 1
        report = EdgeReport(self.seq, tuple(replicas), tuple(pools))
        await self.call.write(encode_body(edge_pb2.EdgeMessage, report))

    def serving(self, replica: str) -> Serving | None:
        """What it may do with a replica."""
        found = [route.serving for route in self.snapshot.routes if route.replica == replica]
        return found[0] if found else None

    def reason(self, replica: str) -> str:
        """Why."""
        return next(route.reason for route in self.snapshot.routes if route.replica == replica)

    def slots(self, replica: str) -> int:
        """Its room on a replica."""
        return sum(credit.slots for credit in self.credits.credits if credit.replica == replica)

    def of_kind(self, *kinds: type) -> list[EdgeUpdate]:
        """The updates with such a body, in order."""
        return [update for update in self.updates if isinstance(update.body, kinds)]

    async def until_serving(self, replica: str, serving: Serving) -> None:
        """Wait for a push that says so."""
        await until(lambda: self.serving(replica) is serving)

    async def follow(self) -> None:
        """Apply and answer what comes until the stream ends."""
        try:
            async for message in self.call:
                if message.HasField("question"):
                    await self.tell(message.question)
                    continue
                update = decode_update(message)
                self.updates.append(update)
                if not self.refusal:
                    self._apply(update)
                if self.acks:
                    await self.answer(update, self.refusal)
        except grpc.aio.AioRpcError as error:
            self.error = error

    def _apply(self, update: EdgeUpdate) -> None:
        match update.body:
            case Snapshot() as snapshot:
                self.snapshot = snapshot
            case Delta() as delta:
                self.snapshot = patch(self.snapshot, delta)
            case Credits() as credits_:
                self.credits = credits_


# A stream may be refused before its hello is written; `error` says so.
_REFUSED = contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError)


@contextlib.asynccontextmanager
async def fake_agent(
    target: str, node: str = "n1", instance: str = "i", identity: Identity | None = None
) -> AsyncIterator[FakeAgent]:
    """An agent that has said hello; leaving the block breaks its stream."""
    async with rpc.channel(target, identity) as channel, TaskRunner() as runner:
        call = InTurn(agent_pb2_grpc.AgentServiceStub(channel).Report(wait_for_ready=True))
        agent = FakeAgent(call)
        reader = runner.once(f"agent {node}", agent.follow())
        with _REFUSED:
            await agent.say(NodeHello(node, "0.0.0", instance))
        yield agent
        call.cancel()
        reader.cancel()


@contextlib.asynccontextmanager
async def fake_edge(
    target: str,
    name: str = "e1",
    hello: EdgeHello | None = None,
    identity: Identity | None = None,
    **behaviour: Any,
) -> AsyncIterator[FakeEdge]:
    """An edge that has said hello; leaving the block breaks its stream."""
    async with rpc.channel(target, identity) as channel, TaskRunner() as runner:
        call = InTurn(edge_pb2_grpc.EdgeServiceStub(channel).Watch(wait_for_ready=True))
        edge = FakeEdge(call, **behaviour)
        reader = runner.once(f"edge {name}", edge.follow())
        greeting = hello or EdgeHello(name, instance=name)
        with _REFUSED:
            await call.write(encode_body(edge_pb2.EdgeMessage, greeting))
        yield edge
        call.cancel()
        reader.cancel()

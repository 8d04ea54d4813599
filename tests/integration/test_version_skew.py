"""Peers one minor older or newer work: what they do not know is skipped, what they lack is absent.

An older peer is played by messages without the fields of the newest minor; a newer one by fields
and kinds of message that this one has never seen.
"""

from __future__ import annotations

import pathlib
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

from tests.fakes.peers import FakeAgent, FakeEdge, facts, fake_agent, fake_edge, sample
from tests.fakes.running_control_plane import config, running
from tests.fakes.wait import until
from tests.integration.test_edge_feed import CREDITS, SNAPSHOT, following, pushing
from trimtab.codec import encode_body
from trimtab.model import (
    Ack,
    Credit,
    Credits,
    Delta,
    EdgeReport,
    Outcome,
    OutcomeCount,
    PoolUse,
    ReplicaUse,
    Serving,
)
from trimtab.v1 import agent_pb2, edge_pb2

M = TypeVar("M", bound=Message)
NEW_FIELD = b"\xfa\x3e\x03new"
"""Field 1007, of three bytes: in no message today."""


def newer(message: M) -> M:
    """The message of a newer peer: the same, with an unknown field at every level."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                newer(part)
    message.MergeFromString(NEW_FIELD)
    return message


def older(message: M, lacks: frozenset[str]) -> M:
    """The message of an older peer: without these fields, at any level."""
    for field, value in message.ListFields():
        if field.name in lacks:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                older(part, lacks)
    return message


LACKS = frozenset({"tokens", "cohorts", "refused", "tenants", "limit_slots", "paces", "listen_url"})
LACKS |= {"steps_total", "metrics_age_ms", "prefix_cache_hits_tokens_total", "max_num_seqs_source"}
LACKS |= {"steady", "reads_steady"}


def aged(message: M, age: str) -> M:
    """As a peer of that age would send it."""
    return newer(message) if age == "newer" else older(message, LACKS)


def alter(peer: FakeAgent | FakeEdge, age: str) -> None:
    """Make all that a peer says be of that age."""
    write = peer.call.write

    async def aged_write(message: Message) -> None:
        await write(aged(message, age))

    peer.call = Altered(peer.call, aged_write)


class Altered:
    """A call that writes in another way."""

    def __init__(self, call: Any, write: Any) -> None:
        self._call = call
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


@pytest.mark.parametrize("age", ["older", "newer"])
async def test_a_control_plane_understands_agents_and_edges(
    tmp_path: pathlib.Path, age: str
) -> None:
    async with running(config(tmp_path)) as target:
        async with fake_agent(target) as agent, fake_edge(target) as edge:
            alter(agent, age)
            alter(edge, age)
            await agent.call.write(agent_pb2.AgentMessage.FromString(NEW_FIELD))
            await edge.call.write(edge_pb2.EdgeMessage.FromString(NEW_FIELD))
            await agent.say(facts())
            await agent.report(sample(running=3, steps_total=5, metrics_age_ms=7))
            await edge.until_serving("r1", Serving.OPEN)
            await until(lambda: edge.slots("r1") == 20)
            ended = (OutcomeCount(Outcome.OK, 1),)
            await edge.report(
                [ReplicaUse("r1", 2, dispatched=3, outcomes=ended, tokens=9)],
                [PoolUse("m", requests=3)],
            )
            await until(lambda: any(c.running == 3 for c in edge.credits.credits))
        assert agent.error is None
        assert edge.error is None


@pytest.mark.parametrize("age", ["older", "newer"])
async def test_an_edge_understands_a_control_plane(tmp_path: pathlib.Path, age: str) -> None:
    target = f"unix:{tmp_path}/c.sock"
    async with pushing(target) as pusher, following(target, tmp_path) as (_, table, dispatch):
        room = Credits((Credit("r0", 8, limit_slots=20),))
        bodies = (SNAPSHOT, room, None, Delta(1, routes_gone=("none",)), CREDITS)
        for number, body in enumerate(bodies, 1):
            message = edge_pb2.EdgeUpdate(term=1, version=number, nonce=number)
            if body is not None:
                message.MergeFrom(encode_body(edge_pb2.EdgeUpdate, body))
            pusher.push_message(aged(message, age))
        await until(lambda: len(pusher.all(Ack)) == len(bodies))
        assert pusher.all(Ack) == [Ack(nonce) for nonce in range(1, len(bodies) + 1)]
        assert table.snapshot == SNAPSHOT
        assert table.credits["r0"].slots == 8
        assert dispatch.has_open("demo")
        await until(lambda: bool(pusher.all(EdgeReport)))

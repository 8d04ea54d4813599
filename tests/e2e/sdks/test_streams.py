"""Honest streams as the users of the official SDKs meet them: comments, losses, errors, leaving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from edge.client import ClientStream
from tests.e2e.sdks.speakers import Question, Speaker
from tests.fakes.edge import EdgeUnderTest, running_edge
from tests.fakes.local_engine import LocalEngine, local_engine
from tests.fakes.wait import until
from trimtab.model import EdgePolicy, Serving

pytestmark = pytest.mark.timeout(180)  # npm may install first
LONG = Question(fields={"max_tokens": 60, "ignore_eos": True}, stream=True)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
WITH_TOOLS = replace(LONG, fields=LONG.fields | {"tools": [TOOL]})
DIES = {"die_mid_stream": {"mode": "api", "after_tokens": 5}}


@dataclass(slots=True)
class Pair:
    """An edge before two engines, of which r0 gets new requests."""

    edge: EdgeUnderTest
    engines: tuple[LocalEngine, LocalEngine]

    def failover(self, on: bool) -> None:
        """Let streams go on elsewhere, or not."""
        pools = tuple(replace(pool, no_failover=not on) for pool in self.edge.snapshot.pools)
        self.edge.push(replace(self.edge.snapshot, pools=pools))

    def open(self, *names: str) -> None:
        """Let only these get new requests."""
        for name in ("r0", "r1"):
            self.edge.set_serving(name, Serving.OPEN if name in names else Serving.CLOSED)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    policy = EdgePolicy(head_hold_ms=10)
    async with (
        local_engine() as a,
        local_engine() as b,
        running_edge([a.url, b.url], policy=policy) as edge,
    ):
        pair = Pair(edge, (a, b))
        pair.open("r0")
        yield pair


async def undisturbed(pair: Pair, speaker: Speaker, question: Question) -> str:
    told = await speaker.ask(pair.edge.url, question)
    assert told.error == ""
    return told.text


async def test_comments_are_invisible(
    pair: Pair, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    comments = 0
    write = ClientStream.keep_alive

    def counted(stream: ClientStream) -> None:
        nonlocal comments
        write(stream)
        comments += 1

    monkeypatch.setattr(ClientStream, "keep_alive", counted)
    expected = await undisturbed(pair, speaker, LONG)
    await pair.engines[0].fault(freeze=True)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(speaker.ask(pair.edge.url, LONG))
        await until(lambda: comments > 0)
        await pair.engines[0].heal()
    assert (asked.result().error, asked.result().text) == ("", expected)


@pytest.mark.parametrize("speaker", ["openai-python", "openai-node"], indirect=True)
async def test_a_plain_stream_goes_on_when_its_replica_dies(pair: Pair, speaker: Speaker) -> None:
    expected = await undisturbed(pair, speaker, LONG)
    await pair.engines[0].fault(**DIES)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(speaker.ask(pair.edge.url, LONG))
        await until(lambda: pair.edge.inflight("r0") == 1)
        pair.open("r1")
    assert (asked.result().error, asked.result().text) == ("", expected)
    assert [exchange.status for exchange in pair.edge.exchanges] == [200, 200]


@dataclass(frozen=True, slots=True)
class Break:
    """A stream that ends in an error event after its first data."""

    name: str
    fault: dict[str, Any]
    code: str
    says: str
    question: Question = LONG
    failover: bool = False
    policy: EdgePolicy = field(default_factory=EdgePolicy)


BREAKS = [
    Break("killed, with tools", DIES, "replica_lost", "incomplete", WITH_TOOLS, failover=True),
    Break("killed, failover off", DIES, "replica_lost", "incomplete"),
    Break("error event", {"error_in_stream": 5}, "replica_lost", "incomplete"),
    Break("abort", {"abort_after": 5}, "replica_lost", "incomplete"),
]


@pytest.mark.parametrize("case", BREAKS, ids=lambda case: case.name)
async def test_a_broken_stream_is_an_error_with_a_code(
    pair: Pair, speaker: Speaker, case: Break
) -> None:
    pair.failover(case.failover)
    expected = await undisturbed(pair, speaker, case.question)
    await pair.engines[0].fault(**case.fault)
    told = await speaker.ask(pair.edge.url, case.question)
    if speaker.name == "anthropic-python":
        assert (told.error, told.type) == ("APIStatusError", "api_error")
    else:
        assert (told.error, told.code, told.type) == ("APIError", case.code, "server_error")
    assert case.says in told.message
    assert told.text
    assert told.text != expected
    assert expected.startswith(told.text)
    assert len(pair.edge.exchanges) == 2  # no SDK asks again for a stream that had begun
    assert pair.edge.dispatch.totals() == (0, 0)


@pytest.mark.parametrize("speaker", ["openai-python", "openai-node"], indirect=True)
async def test_a_broken_stream_of_responses_is_an_error_too(pair: Pair, speaker: Speaker) -> None:
    responses = Question(kind="responses", stream=True)
    expected = await undisturbed(pair, speaker, responses)
    await pair.engines[0].fault(**DIES)
    told = await speaker.ask(pair.edge.url, responses)
    assert (told.error, told.code) == ("APIError", "replica_lost")
    assert expected.startswith(told.text)


async def test_who_leaves_a_stream_frees_the_engine(pair: Pair, speaker: Speaker) -> None:
    await pair.engines[0].fault(slow=20)
    endless = replace(LONG, fields={"max_tokens": 4_000, "ignore_eos": True}, leave_after=3)
    told = await speaker.ask(pair.edge.url, endless)
    assert told.error == ""
    await until(lambda: pair.engines[0].held == 0 and pair.edge.dispatch.totals() == (0, 0))

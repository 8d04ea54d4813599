"""edge/straight: what passes as it is framed is byte for byte what the long way would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import attempt
from edge.admission import Permit
from edge.attempt import Errand, Whole
from edge.client import ClientStream
from edge.core import openai
from edge.core.continuation import Transcript
from edge.core.dispatch import Placement
from edge.core.headers import Journey
from edge.core.openai import Call
from edge.core.replay import Recording
from edge.core.surface import CHAT, Dialect, Found, Surface
from edge.engine_connection import Connection
from edge.http.body import Body
from edge.http.flow import Flow
from edge.http.request import Request
from edge.http.writer import Writer
from edge.straight import Straight
from edge.upstream import Origin, Upstream
from tests.fakes.transport import FakeTransport
from tests.unit.edge.test_shape import event
from trimtab.model import Route, Serving
from trimtab.policy.queue import Ticket

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = event("", finish_reason="stop") + b"data: [DONE]\n\n"
EVENTS = st.one_of(
    st.text(max_size=30).map(event),
    st.sampled_from(
        [
            event(" token"),
            event(" token")[:50],
            event("x" * 3_900),
            event("x" * 4_000),
            event("x", finish_reason="length"),
            event("x", "reasoning"),
            event("x", model="other"),
            b": comment\n\n",
            b'data: {"error":{"message":"x","code":500}}\n\n',
            b"data: [DONE]\n\n",
            b'data: {"id":"x","choices":[],"usage":{"completion_tokens":9}}\n\n',
        ]
    ),
)


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Wired(Upstream):
    """An engine whose answers the test writes."""

    def __init__(self) -> None:
        super().__init__("")
        self.engine = Connection()
        self.engine.connection_made(FakeTransport())

    def take(self, _origin: Origin) -> Connection:
        return self.engine


@dataclass
class Relayed:
    """One stream from an engine to a caller."""

    name: str = "served"
    caller: FakeTransport = field(default_factory=FakeTransport)
    flow: Flow = field(default_factory=Flow)

    def __post_init__(self) -> None:
        self.upstream = Wired()
        body = Body(self.caller, self.upstream.watch)
        body.end()
        writer = Writer(self.caller, self.flow, body)
        request = Request("POST", CHAT, {}, body, writer)
        request.journey = Journey("req_1")
        self.stream = ClientStream(request, Dialect.OPENAI, "req_1")
        self.stream.transcript = Transcript()
        found = Surface(()).find("POST", CHAT)
        assert isinstance(found, Found)
        call = openai.parse(found, "application/json", b'{"model":"served","stream":true}')
        assert isinstance(call, Call)
        route = Route("r", "m", "n", "http://h:1", "served", Serving.OPEN)
        ticket = Ticket(1, 0.0, 1.0, 1.0)
        self.permit = Permit(Placement("m", ticket, route, 0.0, ()))
        call = call.answering_as(self.name)
        self.errand = Errand(self.permit, call, {}, self.stream, 60.0)

    async def feed(self, piece: bytes, turns: int = 4) -> None:
        """The engine sends; then the loop turns."""
        if not (self.running.done() or self.upstream.engine.ended):
            self.upstream.engine.data_received(piece)
        for _ in range(turns):
            await asyncio.sleep(0)

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """Until its engine is gone."""
        async with asyncio.TaskGroup() as group:
            self.running = group.create_task(attempt.run(self.upstream, self.errand))
            await asyncio.sleep(0)
            yield
            self.upstream.engine.connection_lost(None)

    async def play(self, pieces: list[bytes], turns: list[bool]) -> tuple[object, ...]:
        """What became of it; `turns`: after which pieces the loop runs."""
        async with self.begun():
            for piece, turn in zip(pieces, turns, strict=False):
                await self.feed(piece, 4 * turn)
        result, transcript = self.running.result(), self.stream.transcript
        assert transcript is not None
        transcript.fold()
        said = transcript.text, transcript.pieces, transcript.flaw, transcript.finished
        _, _, body = self.caller.written.partition(b"\r\n\r\n")
        return result, body, self.permit.tokens, said


HALF, REST = event("half")[:50], event("half")[50:]


@pytest.mark.parametrize("chunks", [[event("x") + HALF, event("y"), REST], [HALF, REST]])
async def test_what_waits_for_the_rest_of_an_event_goes_first(chunks: list[bytes]) -> None:
    await _same([HEAD, *map(framed, [*map(event, "abcde"), *chunks, LAST])], [True] * 99, "served")


@given(
    chunks=st.lists(st.lists(EVENTS, min_size=1, max_size=3).map(b"".join), max_size=12),
    cuts=st.lists(st.integers(0, 9_000), max_size=6),
    together=st.booleans(),
    name=st.sampled_from(["served", "public"]),
    data=st.data(),
)
async def test_it_leaves_what_the_long_way_leaves(
    chunks: list[bytes], cuts: list[int], together: bool, name: str, data: st.DataObject
) -> None:
    parts = [HEAD, *map(framed, (event("a"), event("b"), event("c"), event("d"), *chunks, LAST))]
    parts.append(b"0\r\n\r\n")
    if together:  # cut anywhere, else where chunks end
        whole = b"".join(parts)
        marks = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
        parts = [whole[a:b] for a, b in pairwise(marks)]
    turns = data.draw(st.lists(st.booleans(), min_size=len(parts), max_size=len(parts)))
    await _same(parts, turns, name)


async def _same(parts: list[bytes], turns: list[bool], name: str) -> None:
    straight = await Relayed(name).play(parts, turns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Straight, "take", lambda *_: False)
        assert await Relayed(name).play(parts, turns) == straight


@pytest.mark.parametrize("name", ["served", "public"])
@pytest.mark.parametrize("case", ["plain", "full", "old", "recorded", "closing"])
async def test_a_chunk_goes_straight_where_nothing_else_is_to_be_done(
    case: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[bool] = []
    take = Straight.take

    def note(straight: Straight, chunk: bytes) -> bool:
        took.append(take(straight, chunk))
        return took[-1]

    monkeypatch.setattr(Straight, "take", note)
    relayed = Relayed(name)
    if case == "old":
        relayed.stream._writer.is_old = True
    if case == "recorded":
        relayed.stream._recording = Recording()
    async with relayed.begun():
        await relayed.feed(HEAD + framed(event("a")))
        for text in "bcde":
            await relayed.feed(framed(event(text)))
        relayed.flow.is_full, relayed.caller.closed = case == "full", case == "closing"
        await relayed.feed(framed(event("f")))
        relayed.flow.resume()
    assert took[-1] is (case == "plain")


async def test_what_an_engine_says_after_the_end_reaches_nobody() -> None:
    relayed = Relayed()
    async with relayed.begun():
        await relayed.feed(HEAD + framed(event("a")))
        for data in (*map(event, "bcde"), LAST, event("more"), event("more")):
            await relayed.feed(framed(data))
    assert relayed.caller.written.endswith(b"[DONE]\n\n\r\n")
    assert isinstance(relayed.running.result(), Whole)

"""One attempt of one request on one replica: send it, relay the answer, say how it ended.

Rules: nothing reaches the caller before the first data event; a stream is whole only when its
dialect's end follows data, with no error and no abort in between; one alarm guards every wait, and
rings early when the control plane says that the replica is lost. Plain data goes to the caller in
the moment in which it comes, and wakes nobody. An attempt that goes on with an answer begins in the
middle of the caller's stream; it counts as begun only by data of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from edge.admission import Permit
from edge.alarm import Alarm, RangError
from edge.client import ClientStream
from edge.core import dialects, naming, openai, sse
from edge.core.openai import Call
from edge.core.passage import Passage
from edge.core.shape import Plain
from edge.core.sse import Kind
from edge.core.surface import Cost
from edge.straight import Straight
from edge.upstream import Answer, Upstream, UpstreamError
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.work import pass_work

COUNT_TIMEOUT_S = 5.0
LESSONS = 3  # events of a stream that are looked at one by one, to know the others by their looks
TAIL_S = 1.0  # how long to wait for the end of a stream after [DONE], to keep its connection


class Whole(msgspec.Struct, frozen=True, gc=False):
    """A finished answer: a body for a plain call, nothing more to send for a stream."""

    body: bytes = b""
    content_type: str = "application/json"


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """The engine's own verdict on the request itself (4xx): passes through as it is."""

    failure: Failure
    body: bytes
    content_type: str


Result = Whole | Rejected | Failure


def failure(result: Result) -> Failure | None:
    """What went wrong, if anything did."""
    if isinstance(result, Whole):
        return None
    return result.failure if isinstance(result, Rejected) else result


class Errand(msgspec.Struct, frozen=True, gc=False):
    """What one attempt has to do."""

    permit: Permit
    call: Call
    headers: Mapping[str, str]
    stream: ClientStream | None
    """For a streamed call."""
    idle_s: float
    """The longest wait for a sign of life."""


async def run(upstream: Upstream, errand: Errand) -> Result:
    """Do it."""
    permit, stream, idle_s = errand.permit, errand.stream, errand.idle_s
    relay = None if stream is None else _Relay(permit, errand.call, stream, idle_s)
    try:
        with upstream.watch.alarm(idle_s) as alarm:
            permit.on_lost = alarm.now
            return await _ask(upstream, errand, relay, alarm)
    except RangError:
        waited = relay is not None and relay.waits_for_client
        fault = Fault.CLIENT_GONE if waited else Fault.SILENT
        failure = Failure(Fault.LOST if permit.lost else fault, message=f"{idle_s:g} s")
        return Whole() if permit.whole else failure
    except UpstreamError as error:
        return Whole() if permit.whole else error.failure
    except (sse.OversizedEventError, msgspec.DecodeError, UnicodeDecodeError):
        return Failure(Fault.MALFORMED)
    finally:
        permit.on_lost = None


async def _ask(upstream: Upstream, errand: Errand, relay: _Relay | None, alarm: Alarm) -> Result:
    permit, call = errand.permit, errand.call
    if permit.lost:
        raise UpstreamError(Failure(Fault.LOST))
    body = call.body_for(permit.served_as, permit.answer_id)
    way = upstream.post(permit.route, call.path, body, errand.headers, method=call.method)
    async with way as answer:
        if answer.status != 200:
            return _verdict(answer, await answer.read())
        if relay is None:
            return _whole(answer, await answer.read(), call, permit)
        return await relay.run(answer, alarm)


async def count_tokens(upstream: Upstream, permit: Permit, text: str) -> int | None:
    """What a text counts by the replica's own tokenizer; None if it does not say so, soon."""
    fields = {"model": permit.route.served_as, "prompt": text, "add_special_tokens": False}
    try:
        async with (
            asyncio.timeout(COUNT_TIMEOUT_S),
            upstream.post(permit.route, "/tokenize", [openai.encode(fields)], {}) as answer,
        ):
            body = await answer.read()
            return openai.token_count(body) if answer.status == 200 else None
    except (UpstreamError, TimeoutError):
        return None


def _verdict(answer: Answer, body: bytes) -> Result:
    failure = Failure(Fault.STATUS, answer.status, dialects.message(body))
    if 400 <= answer.status < 500 and answer.status not in {401, 403, 429}:
        return Rejected(failure, body, answer.content_type)
    return failure


def _whole(answer: Answer, body: bytes, call: Call, permit: Permit) -> Result:
    entry, said = call.entry, dialects.said(body)
    usage = said.usage or dialects.NOTHING
    if entry.cost is Cost.ANSWER and dialects.aborted(entry.dialect, body, said):
        return Failure(Fault.ABORTED)
    # a pass over a prompt makes no token: it counts as so many as it delays those of others
    passed = entry.cost is Cost.PASS
    permit.prompt_tokens, permit.cached_tokens = usage.read_tokens, usage.cached_tokens
    permit.reasoning_tokens = usage.reasoning_tokens
    prompt_tokens = usage.read_tokens or call.prompt_tokens
    permit.tokens = pass_work(prompt_tokens) if passed else usage.made_tokens
    return Whole(naming.whole(body, said.model, call.answers_as), answer.content_type)


class _Relay:
    """Takes an answer's events to the caller, as they come."""

    def __init__(self, permit: Permit, call: Call, stream: ClientStream, idle_s: float) -> None:
        self._permit = permit
        self._stream = stream
        self._idle_s = idle_s
        self._passage = passage = Passage(call, stream.rest, started=stream.started)
        self._scanner = sse.Scanner(passage.read, singly=passage.singly)
        self._lessons = 0 if passage.singly else LESSONS
        self._alarm: Alarm
        self._straight: Straight
        self.waits_for_client = False

    async def run(self, answer: Answer, alarm: Alarm) -> Result:
        """All of it."""
        self._alarm, passage = alarm, self._passage
        straight = Straight(passage.shape, self._stream, self._permit, alarm, self._idle_s)
        self._straight = straight
        while chunk := await answer.some(self._take, straight.take):
            if passage.last is None:  # else nothing but the end of the HTTP body follows
                alarm.within(self._idle_s)
                await self._pass(chunk)
                straight.is_open = passage.flows and not self._scanner.rest
                if passage.last is not None:
                    if failure := _failure(passage):
                        return failure
                    await self._stream.send(passage.end())
                    self._permit.whole = True
                    alarm.within(TAIL_S)
        return Whole() if passage.last is not None else Failure(Fault.CUT)

    def _take(self, chunk: bytes) -> bool:
        """Pass on at once what needs no look and no wait, as nearly all; else False."""
        if not self._passage.flows or self._stream.is_full:
            return False
        events, rest = self._scanner.cut(chunk)
        plain = self._passage.plain(events)
        if plain is None:
            return False
        self._stream.flow(plain)
        self._scanner.rest = rest
        self._straight.is_open = not rest
        self._permit.tokens += plain.number  # an event a token, nearly
        self._alarm.within(self._idle_s)
        return True

    async def _pass(self, chunk: bytes) -> None:
        """Much may come at once: the first events, plain ones, the end."""
        data, self._scanner.rest = self._scanner.rest + chunk, b""
        while self._lessons and (end := data.find(b"\n\n") + 2) > 1:
            self._lessons -= 1
            await self._look_at(data[:end])
            data = data[end:]
        plain, size = self._passage.beginning(data)
        if plain is not None:
            self._permit.tokens += plain.number
            await self._send(plain)
        if data[size:]:
            await self._look_at(data[size:])

    async def _look_at(self, data: bytes) -> None:
        permit, passage = self._permit, self._passage
        if passage.last is not None:
            return
        events = self._scanner.feed(data)
        permit.tokens += sum([event.number for event in events])
        began = passage.began
        passing = passage.feed(events)
        if passage.began and not began:
            permit.on_began()
        if passing:
            await self._send(passing)
        if passage.last is not None:
            permit.tokens = max(permit.counted, passage.tokens or permit.tokens)
            permit.prompt_tokens = passage.prompt_tokens
            permit.cached_tokens = passage.cached_tokens
            permit.reasoning_tokens = passage.reasoning_tokens

    async def _send(self, passing: bytes | Plain) -> None:
        self.waits_for_client = True
        await self._stream.send(passing)
        self.waits_for_client = False


def _failure(passage: Passage) -> Failure | None:
    last = passage.last
    if last is not None and last.kind is Kind.ERROR:
        return Failure(Fault.STATUS, last.status, last.message)
    if last is not None and last.kind is Kind.ABORT:
        return Failure(Fault.ABORTED)
    return Failure(Fault.EMPTY) if passage.is_empty else None

"""One attempt of one request on one replica: send it, relay the answer, say how it ended.

Rules: nothing reaches the caller before the first data event; a stream is whole only when `[DONE]`
follows data, with no error and no abort in between; one watchdog guards every wait, and is pulled
early when the control plane says that the replica is lost. An attempt that goes on with an answer
begins in the middle of the caller's stream; it counts as begun only by data of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import msgspec

from edge.admission import Permit
from edge.client import ClientStream
from edge.core import openai, sse
from edge.core.continuation import Rest
from edge.core.openai import Call
from edge.upstream import Answer, Upstream, UpstreamError
from trimtab.policy.classify import Failure, Fault

COUNT_TIMEOUT_S = 5.0
TAIL_S = 1.0  # how long to wait for the end of a stream after [DONE], to keep its connection


@dataclass(frozen=True, slots=True)
class Whole:
    """A finished answer: a body for a plain call, nothing more to send for a stream."""

    body: bytes = b""
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Rejected:
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


class Watchdog:
    """A deadline that moves on with every sign of life."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self.waits_for_client = False

    def within(self, seconds: float) -> None:
        """The next sign of life must come within this time; too late once time was up."""
        if not self._timeout.expired():
            self._timeout.reschedule(self._loop.time() + seconds)

    def now(self) -> None:
        """Stop waiting."""
        self.within(0.0)


@contextlib.asynccontextmanager
async def _guarded(permit: Permit, idle_s: float) -> AsyncIterator[Watchdog]:
    """Turns a missed deadline into the fault it means."""
    watchdog: Watchdog | None = None
    try:
        async with asyncio.timeout(idle_s) as timeout:
            watchdog = Watchdog(timeout)
            permit.on_lost = watchdog.now
            try:
                if permit.lost:
                    raise UpstreamError(Failure(Fault.LOST))
                yield watchdog
            finally:
                permit.on_lost = None
    except TimeoutError as error:
        if permit.lost:
            fault = Fault.LOST
        elif watchdog is not None and watchdog.waits_for_client:
            fault = Fault.CLIENT_GONE
        else:
            fault = Fault.SILENT
        raise UpstreamError(Failure(fault, message=f"{idle_s:g} s")) from error


async def run(
    upstream: Upstream,
    permit: Permit,
    call: Call,
    headers: Mapping[str, str],
    stream: ClientStream | None,
    idle_s: float,
) -> Result:
    """Do it; `stream` for a streamed call, `idle_s` is the longest wait for a sign of life."""
    body = call.body_for(permit.route.served_as)
    try:
        async with (
            _guarded(permit, idle_s) as watchdog,
            upstream.post(permit.route, call.path, body, headers) as answer,
        ):
            if answer.status != 200:
                return _verdict(answer, await answer.read())
            if stream is None:
                whole = await answer.read()
                permit.tokens = openai.completion_tokens(whole)
                return _whole(answer, whole)
            return await _relay(answer, stream, watchdog, permit, idle_s)
    except UpstreamError as error:
        return error.failure
    except (sse.OversizedEventError, msgspec.DecodeError):
        return Failure(Fault.MALFORMED)


async def count_tokens(upstream: Upstream, permit: Permit, text: str) -> int | None:
    """What a text counts by the replica's own tokenizer; None if it does not say so, soon."""
    fields = {"model": permit.route.served_as, "prompt": text, "add_special_tokens": False}
    try:
        async with (
            asyncio.timeout(COUNT_TIMEOUT_S),
            upstream.post(permit.route, "/tokenize", openai.encode(fields), {}) as answer,
        ):
            body = await answer.read()
            return openai.token_count(body) if answer.status == 200 else None
    except (UpstreamError, TimeoutError):
        return None


def _verdict(answer: Answer, body: bytes) -> Result:
    event = sse.read(b"data: " + body)
    failure = Failure(Fault.STATUS, answer.status, event.message)
    if 400 <= answer.status < 500 and answer.status not in {401, 403, 429}:
        return Rejected(failure, body, answer.content_type)
    return failure


def _whole(answer: Answer, body: bytes) -> Result:
    if sse.aborted(body):
        return Failure(Fault.ABORTED)
    return Whole(body, answer.content_type)


async def _relay(
    answer: Answer, stream: ClientStream, watchdog: Watchdog, permit: Permit, idle_s: float
) -> Result:
    scanner = sse.Scanner()
    end: Failure | None = Failure(Fault.CUT)
    began = ended = False
    async for chunk in answer.chunks():
        if ended:
            continue  # nothing but the end of the HTTP body follows
        watchdog.within(idle_s)
        events = scanner.feed(chunk)
        permit.tokens += len(events)  # an event a token, nearly
        if not began and any(event.kind is sse.Kind.DATA for event in events):
            began = True
            permit.on_began()
        passing, last = _sort(events, stream.rest, started=stream.started)
        if passing:
            watchdog.waits_for_client = True
            await stream.send(passing)
            watchdog.waits_for_client = False
        if last is not None:
            end = _fate(last, started=began)
            if end is not None:
                break
            ended = True
            await stream.send(sse.DONE)
            watchdog.within(TAIL_S)
    return end or Whole()


def _sort(
    events: list[sse.Event], rest: Rest | None, *, started: bool
) -> tuple[bytes, sse.Event | None]:
    """Bytes to pass on, and the event that ends the stream, if one does."""
    passing = bytearray()
    for event in events:
        if event.kind is sse.Kind.DATA:
            passing += event.raw if rest is None else rest.join(event.raw)
            started = True
        elif event.kind is sse.Kind.COMMENT:
            passing += event.raw if started else b""
        else:
            return bytes(passing), event
    return bytes(passing), None


def _fate(last: sse.Event, *, started: bool) -> Failure | None:
    if last.kind is sse.Kind.ERROR:
        return Failure(Fault.STATUS, last.status, last.message)
    if last.kind is sse.Kind.ABORT:
        return Failure(Fault.ABORTED)
    return None if started else Failure(Fault.EMPTY)

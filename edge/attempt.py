"""One attempt of one request on one replica: send it, relay the answer, say how it ended.

Rules: nothing reaches the caller before the first data event; a stream is whole only when `[DONE]`
follows data, with no error and no abort in between; one watchdog guards every wait, and is pulled
early when the control plane says that the replica is lost. An attempt that goes on with an answer
begins in the middle of the caller's stream; it counts as begun only by data of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

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
    """A deadline that moves on with every sign of life; a missed one is the fault that it means.

    asyncio.timeout, but a sign of life costs no more than a number.
    """

    def __init__(self, permit: Permit, idle_s: float) -> None:
        self._permit = permit
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._expired = False
        self.waits_for_client = False

    def within(self, seconds: float) -> None:
        """The next sign of life must come within this time; too late once time was up."""
        self._due_s = self._loop.time() + seconds
        if self._due_s < self._looks_s and not self._expired:
            self._timer.cancel()
            self._look_at(self._due_s)

    def now(self) -> None:
        """Stop waiting."""
        self.within(0.0)

    def _look_at(self, due_s: float) -> None:
        self._looks_s = due_s
        self._timer = self._loop.call_at(due_s, self._look)

    def _look(self) -> None:
        if self._due_s > self._looks_s:  # there were signs of life meanwhile
            self._look_at(self._due_s)
        else:
            self._expired = True
            self._task.cancel()

    async def __aenter__(self) -> Watchdog:
        if self._permit.lost:
            raise UpstreamError(Failure(Fault.LOST))
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cancelled")
        self._task, self._cancels = task, task.cancelling()
        self._due_s = self._loop.time() + self._idle_s
        self._look_at(self._due_s)
        self._permit.on_lost = self.now
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._permit.on_lost = None
        own = self._expired and self._task.uncancel() <= self._cancels
        if own and kind is asyncio.CancelledError:
            raise UpstreamError(Failure(self._fault(), message=f"{self._idle_s:g} s")) from error

    def _fault(self) -> Fault:
        if self._permit.lost:
            return Fault.LOST
        return Fault.CLIENT_GONE if self.waits_for_client else Fault.SILENT


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
            Watchdog(permit, idle_s) as watchdog,
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
    scanner = sse.Scanner(singly=stream.rest is not None)
    end: Failure | None = Failure(Fault.CUT)
    began = ended = False
    async for chunk in answer.chunks():
        if ended:
            continue  # nothing but the end of the HTTP body follows
        watchdog.within(idle_s)
        events = scanner.feed(chunk)
        permit.tokens += sum([event.number for event in events])  # an event a token, nearly
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
    if rest is None and len(events) == 1 and events[0].kind is sse.Kind.DATA:
        return events[0].raw, None
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

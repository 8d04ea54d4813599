"""One attempt of one request on one replica: send it, relay the answer, say how it ended.

Rules: nothing reaches the caller before the first data event; a stream is whole only when its
dialect's end follows data, with no error and no abort in between; one watchdog guards every wait,
and is pulled early when the control plane says that the replica is lost. An attempt that goes on
with an answer begins in the middle of the caller's stream; it counts as begun only by data of its
own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import msgspec

from edge.admission import Permit
from edge.client import ClientStream
from edge.core import dialects, naming, openai, sse
from edge.core.openai import Call
from edge.core.passage import Passage
from edge.core.sse import Kind
from edge.core.surface import Cost
from edge.upstream import Answer, Upstream, UpstreamError
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.work import pass_work

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
    body = call.body_for(permit.served_as, permit.answer_id)
    try:
        async with (
            Watchdog(permit, idle_s) as watchdog,
            upstream.post(permit.route, call.path, body, headers, method=call.method) as answer,
        ):
            if answer.status != 200:
                return _verdict(answer, await answer.read())
            if stream is None:
                return _whole(answer, await answer.read(), call, permit)
            passage = Passage(call, stream.rest, started=stream.started)
            return await _relay(answer, stream, passage, watchdog, permit, idle_s)
    except UpstreamError as error:
        return Whole() if permit.whole else error.failure
    except (sse.OversizedEventError, msgspec.DecodeError, UnicodeDecodeError):
        return Failure(Fault.MALFORMED)


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
    entry, usage = call.entry, dialects.usage(body)
    if entry.cost is Cost.ANSWER and dialects.aborted(entry.dialect, body):
        return Failure(Fault.ABORTED)
    # a pass over a prompt makes no token: it counts as so many as it delays those of others
    prompt_tokens = usage.prompt_tokens or call.prompt_tokens
    permit.tokens = pass_work(prompt_tokens) if entry.cost is Cost.PASS else usage.made_tokens
    return Whole(naming.whole(body, call.answers_as), answer.content_type)


async def _relay(
    answer: Answer,
    stream: ClientStream,
    passage: Passage,
    watchdog: Watchdog,
    permit: Permit,
    idle_s: float,
) -> Result:
    scanner = sse.Scanner(passage.read, singly=passage.singly)
    async for chunk in answer.chunks():
        if passage.last is not None:
            continue  # nothing but the end of the HTTP body follows
        watchdog.within(idle_s)
        events = scanner.feed(chunk)
        permit.tokens += sum([event.number for event in events])  # an event a token, nearly
        began = passage.began
        passing = passage.feed(events)
        if passage.began and not began:
            permit.on_began()
        if passing:
            watchdog.waits_for_client = True
            await stream.send(passing)
            watchdog.waits_for_client = False
        if passage.last is not None:
            permit.tokens = max(permit.counted, passage.tokens or permit.tokens)
            if failure := _failure(passage):
                return failure
            await stream.send(passage.end())
            permit.whole = True
            watchdog.within(TAIL_S)
    return Whole() if passage.last is not None else Failure(Fault.CUT)


def _failure(passage: Passage) -> Failure | None:
    last = passage.last
    if last is not None and last.kind is Kind.ERROR:
        return Failure(Fault.STATUS, last.status, last.message)
    if last is not None and last.kind is Kind.ABORT:
        return Failure(Fault.ABORTED)
    return Failure(Fault.EMPTY) if passage.is_empty else None

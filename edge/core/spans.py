"""What a finished request's record says as spans: the request, its waits, its attempts.

Rules: a pure function of the record, made off the path of requests; it names only what
trimtab/conventions has a name for, and the record holds no prompt, answer or key. A wait that
nobody would notice has no span. Tokens are on attempts alone, so that a sum counts them once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from edge.core.decisions import Attempt, Record
from trimtab import conventions as names
from trimtab.model import Outcome
from trimtab.trace import Kind, Span, Trace, Value

WAIT_MIN_S = 0.001
FINE = frozenset({Outcome.OK, Outcome.CLIENT})
FAILED = frozenset({"replica_error", "timeout", "internal_error"})
OUTCOMES = {outcome: outcome.name.lower() for outcome in Outcome}
Facts = list[tuple[str, Value]]


class Told(msgspec.Struct, frozen=True):
    """What a record does not say by itself."""

    trace: Trace
    wall_s: float
    """What to add to its times for seconds since 1970."""
    addresses: Mapping[str, tuple[str, int]] = {}
    """Host and port of replicas, by name."""

    @property
    def ids(self) -> dict[str, str]:
        """As exemplars name it."""
        trace = self.trace
        return {"trace_id": trace.trace_id, "span_id": f"{trace.span_id:016x}"}


def of(record: Record, told: Told) -> Iterator[Span]:
    """All of them, the request's own first."""
    yield _request(record, told)
    free_s, before = record.since_s, None
    attempts = sorted(record.notes.attempts, key=lambda attempt: attempt.picked_s)
    for number, attempt in enumerate(attempts, 1):
        if attempt.picked_s - free_s >= WAIT_MIN_S:
            yield _wait(record, told, number, (free_s, attempt.picked_s))
        outside = record.notes.outside and number == len(attempts)
        cause = "fallback" if outside else why(attempt, before)
        yield _attempt(record, told, number, attempt, cause)
        free_s, before = max(free_s, attempt.ended_s), attempt
    if not attempts and record.pool and record.ended_s - free_s >= WAIT_MIN_S:
        yield _wait(record, told, 1, (free_s, record.ended_s))


def why(attempt: Attempt, before: Attempt | None) -> str:
    """What an attempt was made for."""
    if before is None:
        return "first"
    if attempt.is_hedge:
        return "hedge"
    if attempt.continued_at_tokens is not None:
        return "continuation"
    return "requeue" if before.outcome is Outcome.OVERLOAD else "retry"


def _request(record: Record, told: Told) -> Span:
    trace, ending, forecast = told.trace, record.ending, record.notes.forecast
    facts: Facts = [
        (names.METHOD, trace.method),
        (names.ROUTE, record.path),
        (names.TENANT, record.tenant),
        (names.OUTCOME, ending.outcome),
    ]
    if record.pool:
        facts += [
            (names.POOL, record.pool),
            (names.REQUEST_MODEL, record.model),
            (names.CLASS, record.urgency.name.lower()),
        ]
    facts += [(names.STATUS, ending.status)] if ending.status else []
    facts += [(names.ERROR_TYPE, ending.code)] if ending.code else []
    if record.notes.not_continued:
        facts.append((names.NOT_CONTINUED, record.notes.not_continued))
    own: Facts = [(names.REQUEST_ID, record.request_id)]
    own += [(names.CALLER_ID, record.caller_id)] if record.caller_id else []
    own += [(names.PREDICTED_WAIT, forecast.wait_s)] if forecast and forecast.wait_s else []
    first_s = record.first_byte_s
    return Span(
        name=f"{trace.method} {record.path}",
        kind=Kind.SERVER,
        trace=trace,
        span_id=trace.span_id,
        parent_id=trace.parent_id,
        began_s=record.since_s + told.wall_s,
        ended_s=record.ended_s + told.wall_s,
        failed=ending.outcome in FAILED or ending.status >= 500,
        facts=facts,
        own=own,
        events=() if first_s is None else ((names.FIRST_DATA, first_s + told.wall_s),),
    )


def _wait(record: Record, told: Told, number: int, times_s: tuple[float, float]) -> Span:
    trace = told.trace
    return Span(
        name="queue",
        kind=Kind.INTERNAL,
        trace=trace,
        span_id=trace.wait_id(number),
        parent_id=trace.span_id,
        began_s=times_s[0] + told.wall_s,
        ended_s=times_s[1] + told.wall_s,
        failed=False,
        facts=((names.POOL, record.pool), (names.ATTEMPT, number)),
    )


def _attempt(record: Record, told: Told, number: int, attempt: Attempt, cause: str) -> Span:
    trace, operation = told.trace, names.operation(record.path)
    facts: Facts = [
        (names.OPERATION, operation),
        (names.PROVIDER, names.VLLM),
        (names.REQUEST_MODEL, record.model),
        (names.REQUEST_STREAM, record.stream),
        (names.REPLICA, attempt.replica),
        (names.ATTEMPT, number),
        (names.WHY, cause),
        (names.OUTCOME, OUTCOMES[attempt.outcome]),
    ]
    if address := told.addresses.get(attempt.replica):
        facts += [(names.SERVER_ADDRESS, address[0]), (names.SERVER_PORT, address[1])]
    if number > 1:
        facts.append((names.RESEND_COUNT, number - 1))
    if attempt.status:
        facts.append((names.STATUS, attempt.status))
    if attempt.fault:
        is_status = attempt.fault == "status"
        facts.append((names.ERROR_TYPE, str(attempt.status) if is_status else attempt.fault))
    if attempt.at_home is not None:
        facts.append((names.AT_HOME, attempt.at_home))
    if attempt.continued_at_tokens is not None:
        facts.append((names.CONTINUED_AT, attempt.continued_at_tokens))
    facts += [
        (name, tokens)
        for name, tokens in (
            (names.INPUT_TOKENS, attempt.prompt_tokens),
            (names.CACHED_TOKENS, attempt.cached_tokens),
            (names.OUTPUT_TOKENS, int(attempt.tokens)),
        )
        if tokens
    ]
    first_s = record.first_byte_s
    answers = first_s is not None and attempt.picked_s <= first_s <= attempt.ended_s
    return Span(
        name=f"{operation} {record.model}",
        kind=Kind.CLIENT,
        trace=trace,
        span_id=trace.attempt_id(number),
        parent_id=trace.span_id,
        began_s=attempt.picked_s + told.wall_s,
        ended_s=attempt.ended_s + told.wall_s,
        failed=attempt.outcome not in FINE,
        facts=facts,
        own=((names.FIRST_CHUNK, first_s - attempt.picked_s),) if answers and first_s else (),
    )

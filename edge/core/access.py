"""The access log: which requests get a line, and what is in it.

Rules: one table, `Line`, from which docs/logs.md is generated; every line has every field, so that
tools need no cases (but `client`, which operators ask for); nothing of a body, an answer or a key,
and of what callers say only `caller_id` and `trace_id`, in letters that are fit for a log.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from edge.core.decisions import Record


class Which(StrEnum):
    """The requests that get a line."""

    ALL = "all"
    ERRORS = "errors"
    NONE = "none"


class Line(msgspec.Struct, gc=False):
    """One line, in the order of its fields."""

    ts: float
    """When the request ended, in seconds since 1970."""
    edge: str
    """The edge that served it."""
    request_id: str
    """The `x-request-id` of its answer: `ctl explain request ID`."""
    trace_id: str
    """Its trace (W3C trace context), 32 hex digits; empty when there is none."""
    caller_id: str
    """The caller's own `x-request-id`: at most 64 printable ASCII characters."""
    tenant: str
    """The name of its key; empty when the key is not known."""
    pool: str
    """Where it ran or waited; empty when it was answered or refused before."""
    model: str
    """The name that it asked for: a pool's, an alias or an adapter; empty for an unknown one."""
    path: str
    """The path as the table of docs/api.md has it; empty for one that is not served."""
    stream: bool
    """Whether events were asked for."""
    code: int
    """The HTTP status; 0 when the caller left before there was one."""
    outcome: str
    """ok, client_error, client_disconnect, shed, replica_error, timeout or internal_error."""
    error: str
    """The code of the error that the caller got (docs/errors.md); empty when it got none."""
    shed_reason: str
    """Where the fleet said no because of itself: why; the reasons of `trimtab_edge_shed_total`."""
    retry_after_ms: int | None
    """When the caller was told to come back."""
    queue_ms: int
    """The time in which it was on no replica."""
    ttft_ms: int | None
    """From its arrival to the first data of a stream that the caller got."""
    duration_ms: int
    """From its arrival to its end."""
    overhead_ms: float
    """Of that, what the edge itself took: neither the queue nor a replica."""
    input_tokens: int
    """Of the prompt, as the engine counted; by its length where the engine said nothing."""
    cached_tokens: int
    """Of these, found in the engine's cache (vLLM says it with --enable-prompt-tokens-details)."""
    output_tokens: int
    """Of the answer, as far as it came; of a pass over a prompt, the work that it was."""
    attempts: int
    """How many replicas were asked."""
    replicas: list[str]
    """Which ones, in the order in which they ended; `fallback` is the API outside of the fleet."""
    hedged: bool
    """Whether a second replica was asked beside a late one."""
    failovers: int
    """How often another replica went on with its stream."""
    client_retries: int
    """How often the caller had tried before, by its SDK's word (`x-stainless-retry-count`)."""
    client_gone: bool
    """Whether the caller left before it had all."""
    event: str = "request"
    """Always `request`: what tells these lines from all others."""
    client: str | msgspec.UnsetType = msgspec.UNSET
    """The address that it came from, with `edge.access_log.client_address`."""


def wanted(record: Record, which: Which) -> bool:
    """Whether it gets a line; `errors` are all that did not go well at once, callers' included."""
    if which is Which.ALL:
        return True
    return which is Which.ERRORS and (record.odd or record.ending.outcome != "ok")


def line(record: Record, edge: str) -> Line:
    """What is said of it."""
    ending, attempts = record.ending, record.notes.attempts
    lasted_s, served_s = record.ended_s - record.since_s, 0.0
    input_tokens = cached_tokens = output_tokens = failovers = 0
    hedged = False
    for attempt in attempts:
        if not input_tokens:  # who goes on with an answer has a longer prompt
            input_tokens, cached_tokens = attempt.prompt_tokens, attempt.cached_tokens
        output_tokens += attempt.tokens
        failovers += attempt.continued_at_tokens is not None
        if attempt.is_hedge:
            hedged = True
        else:
            served_s += attempt.ended_s - attempt.picked_s
    first_s = record.first_byte_s
    return Line(
        ts=round(record.came_ms / 1000 + lasted_s, 3),
        edge=edge,
        request_id=record.request_id,
        trace_id=record.trace_id,
        caller_id=record.caller_id,
        tenant=record.tenant,
        pool=record.pool,
        model=record.model,
        path=record.path,
        stream=record.stream,
        code=ending.status,
        outcome=ending.outcome,
        error=ending.code,
        shed_reason=ending.reason or (ending.code if ending.outcome == "shed" else ""),
        retry_after_ms=None if ending.retry_after_s is None else _ms(ending.retry_after_s),
        queue_ms=_ms(lasted_s - served_s) if record.pool else 0,
        ttft_ms=None if first_s is None else _ms(first_s - record.since_s),
        duration_ms=_ms(lasted_s),
        overhead_ms=round(1000 * record.own_s, 3),
        input_tokens=input_tokens or record.prompt_tokens,
        cached_tokens=cached_tokens,
        output_tokens=output_tokens,
        attempts=len(attempts),
        replicas=[attempt.replica for attempt in attempts],
        hedged=hedged,
        failovers=failovers,
        client_retries=record.retries,
        client_gone=ending.outcome == "client_disconnect",
        client=record.client or msgspec.UNSET,
    )


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds)) if math.isfinite(seconds) else 0

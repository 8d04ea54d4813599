"""What a trace is to us: W3C trace context in and out, and spans as a collector is told of them.

Rules: who calls is believed, in a `traceparent` that is right, about the trace and about whether it
is sampled; otherwise a new trace begins, and its `tracestate` is nobody's. Ids of spans are counted
up from the server's, so that an attempt's is known before it begins, and found again at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum

import msgspec

PARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
"""https://www.w3.org/TR/trace-context: version, trace, parent, flags."""
STATE = re.compile(r"[!-~][ -~]{0,511}")
SAMPLED = 1
LOT_BITS = 192
"""Chance that a new trace takes: 128 for its id, 64 for a span's."""
_HALF = (1 << 64) - 1
_QUEUED = 1 << 16  # ids of waits, beyond those of attempts
Value = str | int | float


class Kind(IntEnum):
    """What a span is to others; OTLP's numbers."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class Trace(msgspec.Struct, frozen=True, gc=False):
    """Where one request stands in its trace."""

    trace_id: str
    """32 hex digits."""
    span_id: int
    """Of the whole request here."""
    parent_id: int = 0
    """Of the caller's span; 0 when the trace begins here."""
    state: str = ""
    """What other vendors have the trace carry."""
    sampled: bool = True
    method: str = "POST"
    """Of the request."""

    def attempt_id(self, number: int) -> int:
        """The span of the n-th attempt, from 1."""
        return self.span_id + number

    def wait_id(self, number: int) -> int:
        """The span of the wait before it."""
        return self.span_id + _QUEUED + number

    def headers(self, attempt: int) -> dict[str, str]:
        """What an attempt carries, so that the engine's own span joins."""
        flags = SAMPLED if self.sampled else 0
        parent = f"00-{self.trace_id}-{self.attempt_id(attempt):016x}-{flags:02x}"
        return {"traceparent": parent, **({"tracestate": self.state} if self.state else {})}


class Span(msgspec.Struct, frozen=True, gc=False):
    """What took how long; times are seconds since 1970."""

    name: str
    kind: Kind
    trace: Trace
    span_id: int
    parent_id: int
    began_s: float
    ended_s: float
    failed: bool
    facts: Sequence[tuple[str, Value]]
    """Attributes whose values come again and again."""
    own: Sequence[tuple[str, Value]] = ()
    """And those that are this span's alone."""
    events: Sequence[tuple[str, float]] = ()
    """What happened in it, and when."""


def begin(parent: str, state: str, lot: int, ratio: float = 1.0, method: str = "POST") -> Trace:
    """Where a request stands whose caller sent these headers; `lot` is LOT_BITS of chance."""
    span_id = (lot & _HALF) >> 1 | 1  # never 0, and room to count up
    found = PARENT.match(parent)
    if found and (found.end() == len(parent) or (found[1] != "00" and parent[found.end()] == "-")):
        state = state if STATE.fullmatch(state) else ""
        sampled = bool(int(found[4], 16) & SAMPLED)
        return Trace(found[2], span_id, int(found[3], 16), state, sampled, method)
    trace_id = lot >> 64 | 1
    sampled = (trace_id & _HALF) < ratio * 2**64  # as OpenTelemetry's TraceIdRatioBased does
    return Trace(f"{trace_id:032x}", span_id, 0, "", sampled, method)

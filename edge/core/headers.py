"""Which headers go to the engine, and which the caller gets: docs/headers.md says it to people.

Rules: nothing of the caller's goes to an engine unless it is listed here, so no credential, cookie,
hop-by-hop header or privilege of vLLM's (X-Vllm-Priority, X-data-parallel-rank, X-Session-ID,
X-Request-Id) can, also those that vLLM has yet to invent. Nothing of an engine's comes back but
its content type. Limits on what others rate are not made up: no x-ratelimit-* without a limit.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.core.decisions import Record
from trimtab import trace
from trimtab.trace import Trace

FORWARDED = {
    "traceparent": trace.PARENT,
    "tracestate": trace.STATE,
    "anthropic-version": re.compile(r"[!-~]{1,64}"),
    "anthropic-beta": re.compile(r"[!-~][ -~]{0,511}"),
}
"""What goes to the engine, if it looks as it should."""
SERVER = "trimtab"
ON_EVERY_ANSWER = ("x-request-id", "openai-processing-ms", "server", "date")
ON_TRACED_ANSWERS = ("x-trace-id",)
ON_ROUTED_ANSWERS = ("x-trimtab-replica", "x-trimtab-attempts", "x-trimtab-queue-ms")
ON_REFUSALS = ("retry-after", "retry-after-ms", "x-should-retry", "www-authenticate")
RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S = 0.2, 90.0  # openai-python gives up above 120 s
RETRY_AFTER_SPREAD = 0.5
CALLER_ID_LIMIT_CHARS = 64


@dataclass(slots=True)
class Journey:
    """What the headers of one answer say about it, as far as it is known."""

    request_id: str
    came_s: float = 0.0
    shows_route: bool = True
    fixed: Mapping[str, str] = field(default_factory=dict)
    """The same for every answer to this caller."""
    replica: str = ""
    attempts: int = 0
    queued_s: float = 0.0
    trace_id: str = ""
    trace: Trace | None = None
    """Where it stands in its trace, if this edge traces."""
    client: str = ""
    """Where it came from, if that is wanted."""
    caller_id: str = ""
    """What its caller calls it."""
    path: str = ""
    """As the table of paths has it; empty for one that is not served."""
    tenant: str = ""
    """Whose it is, once that is known."""
    record: Record | None = None
    """What became of it, if it asked for a replica and has ended."""

    def placed(self, replica: str, waited_s: float) -> None:
        """An attempt begins."""
        self.replica = replica
        self.attempts += 1
        self.queued_s += waited_s

    def headers(self, now_s: float) -> dict[str, str]:
        """What to send if the head goes out now."""
        headers = {
            "server": SERVER,
            "x-request-id": self.request_id,
            "openai-processing-ms": str(int(1000 * (now_s - self.came_s))),
            **self.fixed,
        }
        if self.trace is not None:
            headers["x-trace-id"] = self.trace.trace_id
        if self.shows_route and self.attempts:
            headers["x-trimtab-replica"] = self.replica
            headers["x-trimtab-attempts"] = str(self.attempts)
            headers["x-trimtab-queue-ms"] = str(int(1000 * self.queued_s))
        return headers


def to_engine(
    caller: Mapping[str, str], request_id: str, attempt: int, traced: Trace | None = None
) -> dict[str, str]:
    """What one attempt carries beside what the connection to the engine is about."""
    # never the caller's id: vLLM makes it the engine's own, and ids must be unique there
    headers = {"x-request-id": f"{request_id}-{attempt}"}
    for name, shape in FORWARDED.items():
        value = caller.get(name)
        if value and shape.fullmatch(value) and name not in _for_us_alone(caller):
            headers[name] = value
    if traced is not None:
        headers.pop("tracestate", None)
        headers.update(traced.headers(attempt))
    return headers


def trace_context(caller: Mapping[str, str]) -> tuple[str, str]:
    """What the caller says of its trace: `traceparent` and `tracestate`."""
    parent = caller.get("traceparent", "")
    if not parent or "traceparent" in (ours := _for_us_alone(caller)):
        return "", ""
    return parent, "" if "tracestate" in ours else caller.get("tracestate", "")


def _for_us_alone(caller: Mapping[str, str]) -> set[str]:
    """What a caller names in Connection (RFC 9110, 7.6.1)."""
    return {name.strip().lower() for name in caller.get("connection", "").split(",")}


def trace_id(caller: Mapping[str, str]) -> str:
    """Of the trace that the caller is in, if any."""
    value = caller.get("traceparent")
    return value[3:35] if value and FORWARDED["traceparent"].fullmatch(value) else ""


def caller_id(caller: Mapping[str, str]) -> str:
    """What the caller calls its request, fit for a log."""
    text = caller.get("x-request-id", "")[:CALLER_ID_LIMIT_CHARS]
    return text if text.isascii() and text.isprintable() else ""


def retry_after_s(wait_s: float, request_id: str) -> float:
    """When to come back; spread by the request's id, so that a herd does not come back as one."""
    dice = zlib.crc32(request_id.encode()) / 2**32
    spread_s = max(wait_s, RETRY_AFTER_MIN_S) * (1.0 + RETRY_AFTER_SPREAD * dice)
    return min(spread_s, RETRY_AFTER_MAX_S)

"""A problem in the words of each dialect: status, headers, body, and event inside of a stream.

Rules: whatever the dialect, both families of SDKs must raise on it. So an event of a Responses
stream has its fields twice: where OpenAI's own has them, and under `error`, where the SDKs look.
Anthropic's clients know 529 as overload, read `error.type`, and show the `request-id` header.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge.core.problems import Problem
from edge.core.surface import Dialect

OVERLOADED = 529
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def ids(dialect: Dialect, request_id: str) -> dict[str, str]:
    """The headers of every answer that say which request it was."""
    headers = {"x-request-id": request_id}
    return headers | {"request-id": request_id} if dialect is Dialect.ANTHROPIC else headers


def status(problem: Problem, dialect: Dialect) -> int:
    """The HTTP status."""
    overloaded = problem.code == "server_is_overloaded"
    return OVERLOADED if overloaded and dialect is Dialect.ANTHROPIC else problem.status


def body(problem: Problem, dialect: Dialect, request_id: str) -> bytes:
    """The whole answer."""
    if dialect is not Dialect.ANTHROPIC:
        return problem.body()
    return msgspec.json.encode(_anthropic(problem, request_id))


def event(problem: Problem, dialect: Dialect, request_id: str) -> bytes:
    """The last event of a stream that breaks."""
    if dialect is Dialect.OPENAI:
        return problem.event()
    if dialect is Dialect.ANTHROPIC:
        fields = _anthropic(problem, request_id)
    else:
        error = problem.fields()
        fields = {**error, "type": "error", "sequence_number": 0, "error": error}
    return b"event: error\ndata: " + msgspec.json.encode(fields) + b"\n\n"


def _anthropic(problem: Problem, request_id: str) -> dict[str, object]:
    usual = "invalid_request_error" if problem.status < 500 else "api_error"
    error = {"type": _TYPES.get(problem.status, usual), "message": problem.message}
    return {"type": "error", "error": error, "request_id": request_id}

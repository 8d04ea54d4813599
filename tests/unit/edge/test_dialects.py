"""edge/core/dialects: what an event says, in vLLM's own words for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge.core import dialects
from edge.core.sse import Kind
from edge.core.surface import Dialect

RESPONSES, ANTHROPIC, OPENAI = Dialect.RESPONSES, Dialect.ANTHROPIC, Dialect.OPENAI


def named(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | data)}\n\n".encode()


def response(kind: str, **fields: Any) -> bytes:
    return named(kind, sequence_number=0, response={"id": "resp_1", "status": "completed"} | fields)


@pytest.mark.parametrize(
    ("dialect", "raw", "kind"),
    [
        (RESPONSES, response("response.created", status="in_progress"), Kind.OPENING),
        (RESPONSES, response("response.in_progress", status="in_progress"), Kind.OPENING),
        (RESPONSES, named("response.output_text.delta", delta="event: error"), Kind.DATA),
        (RESPONSES, response("response.completed"), Kind.DONE),
        (RESPONSES, response("response.incomplete", status="incomplete"), Kind.DONE),
        (RESPONSES, response("response.completed", status="cancelled"), Kind.ABORT),
        (RESPONSES, response("response.failed", error={"message": "m"}), Kind.ERROR),
        (RESPONSES, named("error", code="server_error", message="m"), Kind.ERROR),
        (RESPONSES, b'data: {"error":{"message":"m","code":500}}\n\n', Kind.ERROR),
        (RESPONSES, b": keep-alive\n\n", Kind.COMMENT),
        (ANTHROPIC, named("message_start", message={}), Kind.OPENING),
        (ANTHROPIC, named("ping"), Kind.COMMENT),
        (ANTHROPIC, named("content_block_delta", delta={"text": "[DONE]"}), Kind.DATA),
        (ANTHROPIC, named("message_delta", delta={"stop_reason": "end_turn"}), Kind.DATA),
        (ANTHROPIC, named("message_delta", delta={"stop_reason": None}), Kind.ABORT),
        (ANTHROPIC, named("message_stop"), Kind.DONE),
        (ANTHROPIC, named("error", error={"type": "api_error", "message": "m"}), Kind.ERROR),
        (ANTHROPIC, b": keep-alive\n\n", Kind.COMMENT),
        (OPENAI, b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\n', Kind.USAGE),
        (OPENAI, b'data: {"choices":[{"delta":{"content":"\\"choices\\":[]"}}]}\n\n', Kind.DATA),
        (OPENAI, b'data: {"choices":[]}\n\n', Kind.DATA),
    ],
)
def test_what_an_event_means(dialect: Dialect, raw: bytes, kind: Kind) -> None:
    event = dialects.READERS[dialect](raw)
    assert (event.kind, event.raw) == (kind, raw)


@pytest.mark.parametrize(
    ("dialect", "raw", "status", "message"),
    [
        (RESPONSES, named("error", code=503, message="busy"), 503, "busy"),
        (RESPONSES, response("response.failed", error={"message": "m"}), 500, "m"),
        (ANTHROPIC, named("error", error={"type": "overloaded_error", "message": "m"}), 503, "m"),
        (ANTHROPIC, named("error", error={"type": "internal_error", "message": "m"}), 500, "m"),
        (
            ANTHROPIC,  # vLLM can't read its own chat stream's error, and quotes its two ends
            named("error", error={"message": "{'error': {'message': 'Th...ne, 'code': 503}}"}),
            503,
            "{'error': {'message': 'Th...ne, 'code': 503}}",
        ),
    ],
)
def test_what_an_error_says(dialect: Dialect, raw: bytes, status: int, message: str) -> None:
    event = dialects.READERS[dialect](raw)
    assert (event.status, event.message) == (status, message)


@pytest.mark.parametrize(
    ("dialect", "raw"),
    [
        (OPENAI, b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n'),
        (RESPONSES, response("response.completed", usage={"input_tokens": 2, "output_tokens": 7})),
        (
            ANTHROPIC,
            named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7}),
        ),
    ],
)
def test_how_many_tokens_a_stream_had(dialect: Dialect, raw: bytes) -> None:
    assert dialects.READERS[dialect](raw).tokens == 7


@pytest.mark.parametrize(
    ("dialect", "body", "aborted"),
    [
        (OPENAI, {"choices": [{"finish_reason": "abort"}]}, True),
        (OPENAI, {"choices": [{"finish_reason": "stop"}]}, False),
        (RESPONSES, {"status": "cancelled"}, True),
        (RESPONSES, {"status": "incomplete", "error": None}, False),
        (ANTHROPIC, {"type": "message", "content": []}, True),
        (ANTHROPIC, {"type": "message", "stop_reason": "max_tokens"}, False),
        (ANTHROPIC, [], False),
    ],
)
def test_which_whole_answers_are_none(dialect: Dialect, body: object, *, aborted: bool) -> None:
    raw = json.dumps(body).encode()
    assert dialects.aborted(dialect, raw, dialects.said(raw)) is aborted


@pytest.mark.parametrize(
    ("usage", "cached", "thought"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 2}}, 2, 0),
        ({"input_tokens_details": {"cached_tokens": 2}}, 2, 0),
        ({"cache_read_input_tokens": 2}, 2, 0),
        ({"completion_tokens_details": {"reasoning_tokens": 5}}, 0, 5),
        ({"output_tokens_details": {"reasoning_tokens": 5}}, 0, 5),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, 0, 0),
        ({"output_tokens_details": {"reasoning_tokens": -5}}, 0, 0),
    ],
)
def test_what_was_cached_and_what_was_thought(
    usage: dict[str, object], cached: int, thought: int
) -> None:
    found = dialects.said(json.dumps({"usage": usage}).encode()).usage or dialects.NOTHING
    assert (found.cached_tokens, found.reasoning_tokens) == (cached, thought)


@pytest.mark.parametrize(
    ("body", "prompt_tokens", "made_tokens"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}, 3, 4),
        ({"usage": {"input_tokens": 3, "output_tokens": 4}, "status": "completed"}, None, 4),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": None}}, 3, 0),
        ({"usage": None}, None, 0),
        ("text", None, 0),
    ],
)
def test_what_a_whole_answer_counts(
    body: object, prompt_tokens: int | None, made_tokens: int
) -> None:
    usage = dialects.said(json.dumps(body).encode()).usage or dialects.NOTHING
    assert (usage.prompt_tokens, usage.made_tokens) == (prompt_tokens, made_tokens)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "m", "type": "t", "param": None, "code": 400}}, "m"),
        ({"type": "error", "error": {"type": "t", "message": "m"}}, "m"),
        ({"error": "Unauthorized"}, "Unauthorized"),
        ({"message": "m"}, "m"),
        ({"detail": "Not Found"}, ""),
        ("text", ""),
    ],
)
def test_what_an_error_body_says(body: object, message: str) -> None:
    assert dialects.message(json.dumps(body).encode()) == message

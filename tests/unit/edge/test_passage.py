"""edge/core/passage: what a caller gets of an attempt's events."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import openai, surface
from edge.core.openai import Call
from edge.core.passage import Passage
from edge.core.shape import Plain
from edge.core.sse import Kind, Scanner
from edge.core.surface import Found
from tests.fakes.recorded import body_of

RESPONSE = {"id": "resp_1", "model": "served", "status": "completed"}


def passage(path: str = surface.CHAT, *, asked: bool = False, started: bool = False) -> Passage:
    entry = next(entry for entry in surface.TABLE if entry.path == path)
    body: dict[str, Any] = {"model": "public", "stream": True}
    if asked:
        body["stream_options"] = {"include_usage": True}
    call = openai.parse(Found(entry), "application/json", json.dumps(body).encode())
    assert isinstance(call, Call)
    return Passage(call.answering_as("public"), None, started=started)


def passed(way: Passage, raw: bytes, pieces: int = 1) -> bytes:
    """All that a caller gets, where so many bytes come at once."""
    scanner, out = Scanner(way.read), b""
    for at in range(0, len(raw), pieces):
        if way.last is None:
            passing = way.feed(scanner.feed(raw[at : at + pieces]))
            out += passing.passing if isinstance(passing, Plain) else passing
    return out + way.end() if way.last is not None and way.last.kind is Kind.DONE else out


def as_one(body: bytes) -> bytes:
    """Without what differs between any two answers."""
    return re.sub(rb'"id":"[^"]*"', b'"id":"x"', body).replace(b'"tiny"', b'"public"')


def events(*kinds: tuple[str, dict[str, Any]]) -> bytes:
    return b"".join(
        f"event: {kind}\ndata: {json.dumps({'type': kind} | data)}\n\n".encode()
        for kind, data in kinds
    )


@pytest.mark.parametrize("kind", ["chat", "comp"])
@given(pieces=st.integers(1, 4_000))
def test_usage_that_nobody_asked_for_leaves_no_trace(kind: str, pieces: int) -> None:
    way = passage()
    asked_for = body_of(f"{kind}-stream-usage.http")
    assert as_one(passed(way, asked_for, pieces)) == as_one(body_of(f"{kind}-stream.http"))
    assert way.tokens == 6


def test_usage_that_was_asked_for_passes() -> None:
    way, body = passage(asked=True), body_of("chat-stream-usage.http")
    assert as_one(passed(way, body)) == as_one(body)
    assert way.tokens == 6


@pytest.mark.parametrize(
    "recording", ["chat-stream.http", "chat-stream-n2.http", "comp-stream.http"]
)
def test_all_else_passes_as_it_is(recording: str) -> None:
    body = body_of(recording)
    assert passed(passage(), body).replace(b'"public"', b'"tiny"') == body


def test_the_last_words_wait_for_the_usage_and_never_for_good() -> None:
    body = body_of("comp-stream.http")
    way = passage()
    way.feed(Scanner(way.read).feed(body.removesuffix(b"data: [DONE]\n\n")))
    assert way.last is None
    assert b'"finish_reason":"length"' in way.end()


def test_a_responses_stream_opens_with_its_first_data() -> None:
    way = passage(surface.RESPONSES)
    created = events(
        ("response.created", {"response": RESPONSE}), ("response.in_progress", {"response": {}})
    )
    assert passed(way, created) == b""
    assert not way.began
    delta = events(("response.output_text.delta", {"delta": '"model": "served"'}))
    out = passed(way, delta)
    assert way.began
    assert b'"model": "public"' not in delta
    assert out.startswith(b"event: response.created")
    assert out.endswith(delta)
    assert out.count(b'"model": "public"') == 1
    usage = {"usage": {"output_tokens": 5}}
    out = passed(way, events(("response.completed", {"response": RESPONSE | usage})))
    assert b'"model": "public"' in out
    assert way.tokens == 5


def test_a_response_may_be_nothing_but_its_end() -> None:
    way = passage(surface.RESPONSES)
    assert passed(way, events(("response.completed", {"response": RESPONSE})))
    assert not way.is_empty


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        (surface.CHAT, b"data: [DONE]\n\n"),
        (surface.MESSAGES, events(("message_stop", {}))),
    ],
)
def test_an_end_alone_is_no_answer(path: str, raw: bytes) -> None:
    way = passage(path)
    passed(way, raw)
    assert way.is_empty


def test_messages() -> None:
    way = passage(surface.MESSAGES)
    start = events(("message_start", {"message": {"id": "m", "model": "served"}}))
    assert passed(way, start + events(("ping", {}))) == b""
    out = passed(
        way,
        events(
            ("content_block_delta", {"delta": {"text": "hi"}}),
            (
                "message_delta",
                {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
            ),
            ("message_stop", {}),
        ),
    )
    assert out.startswith(start.replace(b"served", b"public"))
    assert out.endswith(events(("message_stop", {})))
    assert way.tokens == 9


def test_comments_pass_once_the_caller_has_data() -> None:
    comment = b": keep-alive\n\n"
    assert passage().feed(Scanner().feed(comment)) == b""
    assert passage(started=True).feed(Scanner().feed(comment)) == comment


def test_nothing_passes_after_an_error() -> None:
    body = body_of("sigkill-enginecore-stream-8.http")
    way = passage()
    out = passed(way, body)
    assert way.last is not None
    assert way.last.kind is Kind.ERROR
    assert b"error" not in out

"""edge/core/continuation: what can go on, how it is asked for, and that the seam is not seen."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import continuation, openai
from edge.core.continuation import FOLD_BYTES, TEXT_LIMIT_CHARS, Transcript
from edge.core.openai import Call
from edge.core.surface import CHAT, TEXT, Entry, Found

PROMPT = {"prompt": "once"}
MESSAGES = {"messages": [{"role": "user", "content": "once"}]}


def call(path: str, **fields: object) -> Call:
    body = (MESSAGES if path == CHAT else PROMPT) | fields
    served = Found(Entry(path, streams=True))
    found = openai.parse(served, "application/json", msgspec.json.encode(body))
    assert isinstance(found, Call)
    return found


def event(choice: dict[str, Any] | None, **more: object) -> bytes:
    head = {"id": "first", "object": "x", "created": 7, "model": "m"}
    choices = [] if choice is None else [{"index": 0, "logprobs": None} | choice]
    return b"data: " + msgspec.json.encode(head | {"choices": choices} | more) + b"\n\n"


def text(said: str, reason: str | None = None) -> bytes:
    return event({"text": said, "finish_reason": reason})


def delta(said: str, reason: str | None = None, **more: object) -> bytes:
    return event({"delta": {"content": said} | more, "finish_reason": reason})


def transcript(*events: bytes) -> Transcript:
    kept = Transcript()
    for one in events:
        kept.sent(one)
    kept.fold()
    return kept


def decoded(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raw.removeprefix(b"data: "))
    return found


@given(
    said=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=20),
    chat=st.booleans(),
    ascii_only=st.booleans(),
    burst=st.integers(1, 5),
)
def test_what_was_sent_is_what_was_said(
    said: list[str], chat: bool, ascii_only: bool, burst: int
) -> None:
    def dump(one: str) -> bytes:
        raw = delta(one) if chat else text(one)
        return b"data: " + json.dumps(decoded(raw), ensure_ascii=ascii_only).encode() + b"\n\n"

    events = [dump(one) if ascii_only else (delta if chat else text)(one) for one in said]
    kept = Transcript()
    for start in range(0, len(events), burst):
        kept.sent(b"".join(events[start : start + burst]))
        if start % 2:
            kept.fold()
    kept.fold()
    assert (kept.text, kept.pieces, kept.flaw) == ("".join(said), len(said), "")


def test_long_answers_are_read_as_they_come_and_very_long_ones_given_up() -> None:
    kept = Transcript()
    for _ in range(3 * FOLD_BYTES // len(text("word"))):
        kept.sent(text("word"))
    assert kept.text
    for _ in range(TEXT_LIMIT_CHARS // 30_000 + 2):
        kept.sent(text("x" * 30_000) + text("y" * 3_000))
    kept.fold()
    assert (kept.flaw, kept.text) == ("length", "")


@pytest.mark.parametrize(
    ("sent", "flaw"),
    [
        (b": comment\n\n" + text("a") + b": comment\n\n" + text("b"), ""),
        (delta("a", reasoning="hm"), "reasoning"),
        (delta("a", reasoning_content="hm"), "reasoning"),
        (delta("a", tool_calls=[{"index": 0}]), "tools"),
        (event({"index": 1, "text": "a"}), "choices"),
        (event({"text": "a", "logprobs": {"tokens": []}}), "logprobs"),
        (b"data: {\n\n", "format"),
    ],
)
def test_flaws_of_what_was_said(sent: bytes, flaw: str) -> None:
    assert continuation.flaw(call(TEXT), transcript(sent)) == flaw


@pytest.mark.parametrize(
    ("path", "fields", "flaw"),
    [
        (CHAT, {}, ""),
        (CHAT, {"n": 1, "tools": [], "tool_choice": "none", "logprobs": False, "seed": 1}, ""),
        (CHAT, {"response_format": {"type": "text"}, "temperature": 0.7, "top_p": 0.9}, ""),
        (CHAT, {"n": 2}, "n"),
        (CHAT, {"tools": [{}]}, "tools"),
        (CHAT, {"tool_choice": "required"}, "tool_choice"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
        (CHAT, {"structured_outputs": {"json": {}}}, "structured_outputs"),
        (CHAT, {"guided_regex": "a*"}, "guided_regex"),
        (CHAT, {"logprobs": True}, "logprobs"),
        (CHAT, {"continue_final_message": True}, "continue_final_message"),
        (CHAT, {"add_generation_prompt": False}, "add_generation_prompt"),
        (CHAT, {"max_completion_tokens": "5"}, "max_completion_tokens"),
        (TEXT, {"logprobs": 0}, "logprobs"),
        (TEXT, {"echo": True}, "echo"),
        (TEXT, {"best_of": 2}, "best_of"),
        (TEXT, {"suffix": "end"}, "suffix"),
        (TEXT, {"prompt": [1, 2]}, "prompt"),
        (TEXT, {"prompt": ["a", "b"]}, "prompt"),
        (TEXT, {"frequency_penalty": 0.5}, "frequency_penalty"),
        (TEXT, {"stop": ["told", "END"]}, ""),
        (TEXT, {"stop": ["on the"]}, "stop"),
    ],
    ids=str,
)
def test_flaws_of_what_was_asked(path: str, fields: dict[str, object], flaw: str) -> None:
    said = (delta if path == CHAT else text)(" upon")
    assert continuation.flaw(call(path, **fields), transcript(said)) == flaw


def test_a_completion_goes_on_after_its_text() -> None:
    asked = call(TEXT, max_tokens=10, min_tokens=4, user="me")
    rest = continuation.rest(asked, transcript(text(" upon"), text(" a")), 3)
    body = {"prompt": "once upon a", "max_tokens": 7, "min_tokens": 1, "user": "me"}
    assert (decoded(rest.body), rest.tokens, rest.over) == (body, 3, False)
    plain = continuation.rest(call(TEXT), transcript(text(" upon")), None)
    assert decoded(plain.body) == {"prompt": "once upon", "max_tokens": 15}


def test_a_chat_goes_on_in_its_last_message() -> None:
    said = transcript(event({"delta": {"role": "assistant", "content": ""}}), delta("upon"))
    rest = continuation.rest(call(CHAT, max_completion_tokens=9, max_tokens=5), said, 1)
    assert decoded(rest.body) == {
        "messages": [*MESSAGES["messages"], {"role": "assistant", "content": "upon"}],
        "max_completion_tokens": 8,
        "max_tokens": 4,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def test_a_chat_of_which_only_the_role_is_known_is_asked_again() -> None:
    said = transcript(event({"delta": {"role": "assistant", "content": ""}}))
    rest = continuation.rest(call(CHAT), said, 0)
    assert (decoded(rest.body), rest.tokens) == (MESSAGES, 0)
    assert rest.join(event({"delta": {"role": "assistant", "content": ""}})) == b""


def test_the_seam_is_not_seen() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    rest = continuation.rest(call(CHAT, max_tokens=9), transcript(delta("upon")), 2)
    other = event({"delta": {"role": "assistant", "content": " a"}}, id="second", created=9)
    assert rest.join(other) == event({"delta": {"content": " a"}})
    summed = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert rest.join(event(None, usage=usage)) == event(None, usage=summed)
    finish = event({"delta": {}, "finish_reason": "stop"})
    assert rest.join(finish) == finish


def test_usage_told_with_each_event_counts_more_than_a_count() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
    said = transcript(event({"text": " upon"}, usage=usage))
    assert continuation.rest(call(TEXT, max_tokens=10), said, 9).tokens == 4


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_what_has_all_its_tokens_is_finished_without_asking(path: str) -> None:
    said = transcript((delta if path == CHAT else text)("upon"))
    rest = continuation.rest(call(path, max_tokens=5), said, 5)
    finish = decoded(rest.finish)
    assert (rest.body, rest.over) == (b"", True)
    assert (finish["id"], finish["choices"][0]["finish_reason"]) == ("first", "length")


def test_a_whole_text_without_its_usage_costs_one_token() -> None:
    asked = call(TEXT, max_tokens=5, stream_options={"include_usage": True})
    said = transcript(text(" upon"), text(" a", "stop"))
    assert not continuation.is_whole(asked, said)
    assert continuation.is_whole(call(TEXT), said)
    rest = continuation.rest(asked, said, 2)
    assert decoded(rest.body)["max_tokens"] == 1
    assert (rest.finish, rest.join(text("nobody hears this", "length"))) == (b"", b"")
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    told = decoded(rest.join(event(None, usage=usage)))["usage"]
    assert told == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}

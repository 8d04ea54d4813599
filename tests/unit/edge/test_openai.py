"""edge/core/openai: the body passes through; what the edge owns, it owns."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import openai
from edge.core.openai import Call
from edge.core.problems import Problem
from trimtab.model import Pool, Route

CHAT = "/v1/chat/completions"
JSON = "application/json"


def parsed(body: bytes, content_type: str = JSON) -> Call:
    call = openai.parse(CHAT, content_type, body)
    assert isinstance(call, Call), call
    return call


def refused(body: bytes, content_type: str = JSON) -> Problem:
    problem = openai.parse(CHAT, content_type, body)
    assert isinstance(problem, Problem)
    return problem


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("true", True),
        ("false", False),
        ("null", False),
        ("1", True),
        ('"true"', True),
        ("0", False),
    ],
)
def test_stream_is_read_as_vllm_reads_it(stream: str, expected: bool) -> None:
    assert parsed(f'{{"model":"m","stream":{stream}}}'.encode()).stream is expected


def test_an_untouched_body_is_the_same_bytes() -> None:
    body = b'{ "zzz":{"a":[1]},\n "model" : "m", "top_k":3,"structured_outputs":{"x":1e400} }'
    call = parsed(body)
    assert call.model == "m"
    assert call.body_for("m") is call.body
    assert call.body == body


def test_the_model_is_renamed_and_the_rest_survives_literally() -> None:
    call = parsed(b'{"model":"public","seed":1.0,"messages":[{"content":"\\u00e9"}]}')
    assert call.body_for("served") == (
        b'{"model":"served","seed":1.0,"messages":[{"content":"\\u00e9"}]}'
    )


@pytest.mark.parametrize("name", openai.PRIVILEGED_FIELDS)
def test_fields_that_help_the_caller_himself_are_taken_out(name: str) -> None:
    call = parsed(json.dumps({"model": "m", name: -9, "n": 1}).encode())
    assert json.loads(call.body_for("m")) == {"model": "m", "n": 1}


def test_without_a_model_none_is_put_in() -> None:
    call = parsed(b'{"messages":[]}')
    assert call.model is None
    assert call.body_for("served") == b'{"messages":[]}'


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b'{"model":', JSON, "invalid_json"),
        (b"", JSON, "invalid_json"),
        (b"[]", JSON, "invalid_json"),
        (b'{"model":5}', JSON, "invalid_json"),
        (b'{"model":"m"}', "text/plain", "invalid_json"),
        (b'{"model":"m"}', "", "invalid_json"),
    ],
)
def test_what_cannot_be_read_is_the_callers_fault(
    body: bytes, content_type: str, code: str
) -> None:
    problem = refused(body, content_type)
    assert (problem.status, problem.code, problem.retry) == (400, code, False)


def test_a_json_error_says_where() -> None:
    assert "byte 10" in refused(b'{"model": x}').message


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    assert isinstance(openai.parse(CHAT, JSON, body), Call | Problem)


@given(
    st.dictionaries(
        st.text(max_size=8) | st.sampled_from(["model", *openai.PRIVILEGED_FIELDS]),
        st.none() | st.booleans() | st.text(max_size=5) | st.lists(st.integers(-5, 5), max_size=3),
        max_size=8,
    )
)
def test_rewriting_changes_only_what_the_edge_owns(fields: dict[str, object]) -> None:
    fields["model"] = "public"
    sent = json.loads(parsed(msgspec.json.encode(fields)).body_for("served"))
    owned = {"model", *openai.PRIVILEGED_FIELDS}
    assert {k: v for k, v in sent.items() if k not in owned} == {
        k: v for k, v in fields.items() if k not in owned
    }
    assert sent["model"] == "served"
    assert not set(sent) & set(openai.PRIVILEGED_FIELDS)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer sk-1"}, "sk-1"),
        ({"authorization": "bearer  sk-1 "}, "sk-1"),
        ({"x-api-key": "sk-2"}, "sk-2"),
        ({"api-key": "sk-3"}, "sk-3"),
        ({"authorization": "Basic dXNlcg=="}, ""),
        ({"authorization": "Bearer "}, ""),
        ({}, ""),
    ],
)
def test_credentials_from_any_header_in_use(headers: dict[str, str], key: str) -> None:
    assert openai.credentials(headers) == key


@pytest.mark.parametrize(
    ("headers", "patience_s"),
    [
        ({"x-stainless-read-timeout": "30"}, 30.0),
        ({"x-stainless-timeout": "5.5"}, 5.5),
        ({"x-stainless-read-timeout": "999999"}, openai.DEADLINE_MAX_S),
        ({"x-stainless-read-timeout": "soon"}, None),
        ({"x-stainless-read-timeout": "nan"}, None),
        ({"x-stainless-read-timeout": "-1"}, None),
        ({}, None),
    ],
)
def test_how_long_the_caller_will_wait(headers: dict[str, str], patience_s: float | None) -> None:
    assert openai.patience_s(headers) == patience_s


LONG = "You are a careful assistant. " * 100
ASKED = [{"role": "system", "content": LONG}, {"role": "user", "content": 'what is "user" {?'}]
REPLIED = [*ASKED, {"role": "assistant", "content": "that"}, {"role": "user", "content": "and?"}]
OTHER = [ASKED[0], {"role": "user", "content": "why?"}]
PARTS = [ASKED[0], {"role": "user", "content": [{"type": "text", "text": "see"}]}]
DOCUMENT = [{"role": "user", "content": "x" * 20_000}]


def affine(body: dict[str, object], headers: dict[str, str] | None = None, who: str = "t") -> bytes:
    call = parsed(msgspec.json.encode({"model": "m"} | body))
    return openai.affinity_key(headers or {}, call, who)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ASKED, REPLIED, True),
        (PARTS, [*PARTS, REPLIED[2]], True),
        (DOCUMENT, [*DOCUMENT, REPLIED[2]], True),
        (ASKED, OTHER, False),
        (ASKED, PARTS, False),
    ],
)
def test_the_turns_of_a_conversation_have_one_key(one: object, other: object, same: bool) -> None:
    key = affine({"messages": one, "max_tokens": 5})
    assert len(key) == 8
    assert (key == affine({"messages": other, "seed": 7})) is same


def test_a_prompt_that_grows_at_its_end_keeps_its_key() -> None:
    assert affine({"prompt": LONG}) == affine({"prompt": LONG + "more"}) != b""
    assert affine({"prompt": LONG}) != affine({"prompt": "Now " + LONG})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": OTHER[1:]},
        {"prompt": "short", "prompt_cache_key": ""},
        {"prompt": "short", "prompt_cache_key": 7},
        {"prompt": "short", "prompt_cache_key": None},
    ],
)
def test_without_a_name_or_a_long_prompt_there_is_no_key(body: dict[str, object]) -> None:
    assert affine(body) == affine(body, {"x-session-id": ""}) == b""


@pytest.mark.parametrize("header", openai.SESSION_HEADERS)
def test_the_session_named_counts_before_the_prompt(header: str) -> None:
    named = affine({"messages": ASKED}, {header: "s1"})
    assert named == affine({"messages": OTHER, "prompt_cache_key": "k"}, {header: "s1"})
    assert named != affine({"messages": ASKED}, {header: "s2"})
    assert named != affine({"messages": ASKED}, {header: "s1"}, "another tenant")
    assert affine({}, {header: "x" * 9_000 + "\udcff"})


def test_the_cache_key_counts_before_the_prompt() -> None:
    named = affine({"messages": ASKED, "prompt_cache_key": "k"})
    assert named == affine({"messages": OTHER, "prompt_cache_key": "k"})
    assert named not in {
        affine({"messages": ASKED, "prompt_cache_key": "k2"}),
        affine({"messages": ASKED, "prompt_cache_key": "k"}, who="another tenant"),
        affine({"messages": ASKED}),
    }


@pytest.mark.parametrize(
    ("asked", "lengths", "refused"),
    [
        ('"max_tokens":101', (100, 50), True),
        ('"max_completion_tokens":101', (100,), True),
        ('"max_tokens":100', (100, 50), False),
        ('"max_tokens":101', (100, None), False),
        ('"max_tokens":101', (), False),
        ('"max_tokens":null', (100,), False),
    ],
)
def test_an_answer_longer_than_any_context_is_refused_here(
    asked: str, lengths: tuple[int | None, ...], refused: bool
) -> None:
    routes = [Route("r", "m", "n", "u", "m", max_model_len_tokens=n) for n in lengths]
    problem = openai.beyond_context(parsed(b"{%s}" % asked.encode()), routes)
    assert (problem is not None) == refused
    if problem is not None:
        assert problem.code == "context_length_exceeded"
        assert "101 output tokens" in problem.message
        assert "100 tokens" in problem.message


def test_a_model_card_promises_what_every_replica_can_take() -> None:
    routes = [
        Route("a", "m", "n", "u", "m", max_model_len_tokens=8192),
        Route("b", "m", "n", "u", "m", max_model_len_tokens=4096),
        Route("c", "m", "n", "u", "m"),
    ]
    card = openai.model_card(Pool("m"), routes, 7)
    assert card["max_model_len"] == 4096
    assert "max_model_len" not in openai.model_card(Pool("m"), [], 7)
    listed = json.loads(openai.model_list([card]))
    assert listed["object"] == "list"
    assert listed["data"][0]["id"] == "m"

"""edge/core/openai: the body passes through; what the edge owns, it owns."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import openai, surface
from edge.core.openai import Call
from edge.core.problems import Problem
from edge.core.surface import CHAT, Entry, Found, Surface
from trimtab.model import Route

FOUND = Found(Entry(CHAT, streams=True))
JSON = "application/json"


def parsed(body: bytes, content_type: str = JSON) -> Call:
    call = openai.parse(FOUND, content_type, body)
    assert isinstance(call, Call), call
    return call


def refused(body: bytes, content_type: str = JSON) -> Problem:
    problem = openai.parse(FOUND, content_type, body)
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
    assert call.body_for("m")[0] is call.body
    assert call.body == body


def test_the_model_is_renamed_and_the_rest_survives_literally() -> None:
    call = parsed(b'{"model":"public","seed":1.0,"messages":[{"content":"\\u00e9"}]}')
    assert b"".join(call.body_for("served")) == (
        b'{"model":"served","seed":1.0,"messages":[{"content":"\\u00e9"}]}'
    )


@pytest.mark.parametrize("name", openai.PRIVILEGED_FIELDS)
def test_fields_that_help_the_caller_himself_are_taken_out(name: str) -> None:
    call = parsed(json.dumps({"model": "m", name: -9, "n": 1}).encode())
    assert json.loads(b"".join(call.body_for("m"))) == {"model": "m", "n": 1}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", '{"include_usage":true}'),
        (',"stream_options":null', '{"include_usage":true}'),
        (',"stream_options":{}', '{"include_usage":true}'),
        (',"stream_options":{"include_usage":false, "x":1.0}', '{"include_usage":true, "x":1.0}'),
        (',"stream_options":{"continuous_usage_stats":true}', '{"include_usage":true}'),
        (',"stream_options":{"include_usage":true}', None),
        (',"stream_options":"nonsense"', None),
    ],
)
def test_a_stream_is_asked_for_its_usage_where_the_caller_did_not(
    options: str, expected: str | None
) -> None:
    body = f'{{"model":"m","stream":true{options},"last":1.0}}'.encode()
    sent = b"".join(parsed(body).body_for("m"))
    if expected is None:
        assert sent == body
    else:
        fields = msgspec.json.decode(sent, type=dict[str, msgspec.Raw])
        assert bytes(fields["stream_options"]) == expected.encode()
        assert bytes(fields["last"]) == b"1.0"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/embeddings"])
def test_usage_is_asked_for_only_where_streams_have_to_be(path: str) -> None:
    body = b'{"model":"m","stream":true,"previous_response_id":"resp_1"}'
    found = Surface().find("POST", path)
    assert isinstance(found, Found)
    call = openai.parse(found, JSON, body)
    assert isinstance(call, Call)
    assert call.body_for("m")[0] is body
    assert call.stream is (path != "/v1/embeddings")
    assert call.previous == ("resp_1" if path == "/v1/responses" else "")


@pytest.mark.parametrize(
    ("path", "query", "asked"),
    [
        (surface.RESPONSE, {}, ""),
        (surface.RESPONSE, {"stream": "true"}, "?stream=true"),
        (
            surface.RESPONSE,
            {"stream": "True", "starting_after": "7", "x": "&y"},
            "?stream=true&starting_after=7",
        ),
        (surface.RESPONSE, {"stream": "1", "starting_after": "7&"}, "?stream=true"),
        (surface.CANCEL, {"stream": "true"}, "/cancel"),
    ],
)
def test_a_request_about_an_answer(path: str, query: dict[str, str], asked: str) -> None:
    entry = next(entry for entry in surface.TABLE if entry.path == path)
    call = openai.about(Found(entry, "resp_1"), entry.methods[0], query)
    assert call.path == f"/v1/responses/resp_1{asked}"
    assert (call.method, call.body, call.stream) == (entry.methods[0], b"", "?" in asked)


def test_a_body_of_too_many_names_is_not_taken_apart() -> None:
    names = ",".join(f'"a{number}" :1' for number in range(openai.FIELDS_LIMIT + 1))
    assert "names" in refused(f"{{{names}}}".encode()).message


def test_without_a_model_none_is_put_in() -> None:
    call = parsed(b'{"messages":[]}')
    assert call.model is None
    assert b"".join(call.body_for("served")) == b'{"messages":[]}'


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b'{"model":', JSON, "invalid_json"),
        (b"", JSON, "invalid_json"),
        (b"[]", JSON, "invalid_json"),
        (b'{"model":5}', JSON, "invalid_json"),
        (b'{"x":' + b"[" * 9_000 + b"]" * 9_000 + b"}", JSON, "invalid_json"),
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
    assert isinstance(openai.parse(FOUND, JSON, body), Call | Problem)


@given(
    st.dictionaries(
        st.text(max_size=8) | st.sampled_from(["model", *openai.PRIVILEGED_FIELDS]),
        st.none() | st.booleans() | st.text(max_size=5) | st.lists(st.integers(-5, 5), max_size=3),
        max_size=8,
    )
)
def test_rewriting_changes_only_what_the_edge_owns(fields: dict[str, object]) -> None:
    fields["model"] = "public"
    fields.pop("stream", None)  # what is asked of streams has tests of its own
    sent = json.loads(b"".join(parsed(msgspec.json.encode(fields)).body_for("served")))
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


def test_a_list_of_models() -> None:
    listed = json.loads(openai.model_list([{"id": "m"}]))
    assert listed == {"object": "list", "data": [{"id": "m"}]}

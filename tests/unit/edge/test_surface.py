"""edge/core/surface: what is served, by whom, and what never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import surface
from edge.core.problems import Problem
from edge.core.surface import Cost, Dialect, Found, ModelIn, Surface

SURFACE = Surface()
EXTRA = "/v1/chat/completions/batch"


def found(method: str, path: str, served: Surface = SURFACE) -> Found:
    answer = served.find(method, path)
    assert isinstance(answer, Found), answer
    return answer


def refused(method: str, path: str, served: Surface = SURFACE) -> Problem:
    answer = served.find(method, path)
    assert isinstance(answer, Problem)
    return answer


@pytest.mark.parametrize(
    ("request_line", "dialect", "cost", "streams"),
    [
        ("POST /v1/chat/completions", Dialect.OPENAI, Cost.ANSWER, True),
        ("POST /v1/completions", Dialect.OPENAI, Cost.ANSWER, True),
        ("POST /v1/responses", Dialect.RESPONSES, Cost.ANSWER, True),
        ("GET /v1/responses/resp_1", Dialect.RESPONSES, Cost.CHEAP, True),
        ("POST /v1/responses/resp_1/cancel", Dialect.RESPONSES, Cost.CHEAP, False),
        ("POST /v1/messages", Dialect.ANTHROPIC, Cost.ANSWER, True),
        ("POST /v1/messages/count_tokens", Dialect.ANTHROPIC, Cost.CHEAP, False),
        ("POST /v1/embeddings", Dialect.OPENAI, Cost.PASS, False),
        ("POST /rerank", Dialect.OPENAI, Cost.PASS, False),
        ("POST /v1/score", Dialect.OPENAI, Cost.PASS, False),
        ("POST /tokenize", Dialect.OPENAI, Cost.CHEAP, False),
        ("GET /v1/models", Dialect.OPENAI, Cost.NOTHING, False),
        ("HEAD /", Dialect.OPENAI, Cost.NOTHING, False),
    ],
)
def test_what_is_served(request_line: str, dialect: Dialect, cost: Cost, *, streams: bool) -> None:
    method, _, path = request_line.partition(" ")
    entry = found(method, path).entry
    assert (entry.dialect, entry.cost, entry.streams) == (dialect, cost, streams)
    assert found(method, path).path == path


def test_names_in_paths() -> None:
    assert found("GET", "/v1/models/meta-llama/Llama-3").id == "meta-llama/Llama-3"
    assert found("POST", "/v1/responses/resp_1/cancel").id == "resp_1"
    assert found("POST", "/v1/responses/resp_1/cancel").entry.model is ModelIn.ID
    for path in ("/v1/responses/a b", "/v1/responses/..", "/v1/responses/a/../x/cancel"):
        assert refused("GET", path).status == 404


@pytest.mark.parametrize(
    ("request_line", "status", "words"),
    [
        ("GET /v1/chat/completions", 405, "takes POST, not GET"),
        ("DELETE /v1/responses/resp_1", 405, "takes GET"),
        ("POST /v1/images/generations", 404, "Served: POST /v1/chat/completions"),
        ("GET /v1/v1/models", 404, "end in /v1 once"),
        ("GET //v1/models", 404, "without a slash too many"),
        ("GET /v1/models/", 404, "without a slash too many"),
        (f"POST {EXTRA}", 404, "not served"),
        ("POST /sleep", 404, "not served"),
    ],
)
def test_what_is_denied(request_line: str, status: int, words: str) -> None:
    method, _, path = request_line.partition(" ")
    problem = refused(method, path)
    assert problem.status == status
    assert words in problem.message


def test_extra_paths_add_but_never_the_engines_own_controls() -> None:
    asked = (EXTRA, "/sleep", "/v1/load_lora_adapter", "/collective_rpc", "/fault_tolerance/apply")
    served = Surface(asked)
    assert found("POST", EXTRA, served).entry.model is ModelIn.JSON
    assert f"POST {EXTRA}" in served.served
    for path in asked[1:]:
        assert refused("POST", path, served).status == 404


def test_an_extra_path_does_not_replace_what_is_served() -> None:
    assert found("POST", "/v1/messages", Surface(("/v1/messages",))).entry.streams


@pytest.mark.parametrize(
    ("request_line", "headers", "dialect"),
    [
        ("POST /v1/messages", {}, Dialect.ANTHROPIC),
        ("GET /v1/models", {}, Dialect.OPENAI),
        ("GET /v1/models", {"anthropic-version": "2023-06-01"}, Dialect.ANTHROPIC),
        ("GET /nothing", {"anthropic-version": "2023-06-01"}, Dialect.ANTHROPIC),
        ("POST /v1/embeddings", {"anthropic-version": "2023-06-01"}, Dialect.OPENAI),
        ("POST /v1/responses", {}, Dialect.RESPONSES),
    ],
)
def test_whose_dialect(request_line: str, headers: dict[str, str], dialect: Dialect) -> None:
    method, _, path = request_line.partition(" ")
    assert surface.dialect(SURFACE.find(method, path), headers) is dialect


@given(st.text(alphabet="/abv1.%\\ models_resp", max_size=40), st.sampled_from(["GET", "POST"]))
def test_no_path_reaches_an_engine_but_as_it_stands_in_the_table(path: str, method: str) -> None:
    answer = SURFACE.find(method, f"/{path}")
    if isinstance(answer, Found) and answer.entry.cost is not Cost.NOTHING:
        assert not surface.never(answer.path)
        assert answer.path == f"/{path}"

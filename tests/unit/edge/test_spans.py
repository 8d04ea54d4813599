"""edge/core/spans: what a record says as spans."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core import spans
from edge.core.decisions import Attempt, Ending, Notes, Record
from edge.core.spans import Told
from trimtab import conventions as names
from trimtab import trace
from trimtab.model import Outcome, Urgency
from trimtab.policy.queue import Forecast
from trimtab.trace import Kind, Span

TRACE = trace.begin("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "", 7 << 64 | 99)
TOLD = Told(TRACE, 1000.0, {"r0": ("10.0.0.1", 8000)})
FINE, OVERLOAD, HARD = Outcome.OK, Outcome.OVERLOAD, Outcome.HARD


def attempt(picked_s: float, ended_s: float, outcome: Outcome = FINE, **more: Any) -> Attempt:
    fault, status = ("", 200) if outcome is FINE else ("status", 503)
    return Attempt(f"r{int(picked_s) % 2}", picked_s, ended_s, outcome, fault, status, (), **more)


def record(*attempts: Attempt, ending: Ending | None = None, **more: Any) -> Record:
    """One that came at 10 s and ended at 20 s."""
    notes = Notes(Forecast(0.5, 45.0), list(attempts), outside=more.pop("outside", False))
    return Record(
        request_id="req_1",
        pool="demo",
        tenant="lab",
        urgency=Urgency.BATCH,
        came_ms=1,
        since_s=10.0,
        notes=notes,
        first_byte_s=more.pop("first_byte_s", None),
        ended_s=20.0,
        ending=ending or Ending("ok", 200),
        path="/v1/chat/completions",
        model="alias",
        trace=TRACE,
        **more,
    )


def facts(span: Span) -> dict[str, object]:
    return dict([*span.facts, *span.own])


def tree(made: list[Span]) -> list[tuple[Any, ...]]:
    """Name, number and reason of each, and when."""
    return [
        (
            *(s.name, facts(s).get(names.ATTEMPT), facts(s).get(names.WHY)),
            *(s.began_s - 1000, s.ended_s - 1000, s.failed),
        )
        for s in made
    ]


def test_the_ordinary_request_is_two_spans() -> None:
    server, client = spans.of(
        record(
            attempt(10.0, 20.0, tokens=9, prompt_tokens=5, cached_tokens=4),
            first_byte_s=12.0,
            stream=True,
        ),
        TOLD,
    )
    assert (server.name, server.kind) == ("POST /v1/chat/completions", Kind.SERVER)
    assert (server.span_id, server.parent_id) == (TRACE.span_id, 0xB7AD6B7169203331)
    assert server.events == ((names.FIRST_DATA, 1012.0),)
    assert facts(server) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.request.model": "alias",
        "trimtab.pool": "demo",
        "trimtab.tenant": "lab",
        "trimtab.class": "batch",
        "trimtab.outcome": "ok",
        "trimtab.request_id": "req_1",
        "trimtab.queue.predicted_wait_seconds": 0.5,
    }
    assert (client.name, client.kind) == ("chat alias", Kind.CLIENT)
    assert (client.span_id, client.parent_id) == (TRACE.attempt_id(1), TRACE.span_id)
    assert facts(client) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "alias",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 2.0,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.output_tokens": 9,
        "http.response.status_code": 200,
        "server.address": "10.0.0.1",
        "server.port": 8000,
        "trimtab.attempt": 1,
        "trimtab.attempt.why": "first",
        "trimtab.outcome": "ok",
        "trimtab.replica": "r0",
    }


@pytest.mark.parametrize(
    ("attempts", "outside", "told"),
    [
        (
            [attempt(11, 13, OVERLOAD), attempt(14, 15, HARD), attempt(15, 20)],
            False,
            [
                ("queue", 1, None, 10, 11, False),
                ("chat alias", 1, "first", 11, 13, True),
                ("queue", 2, None, 13, 14, False),
                ("chat alias", 2, "requeue", 14, 15, True),
                ("chat alias", 3, "retry", 15, 20, False),
            ],
        ),
        (
            [attempt(10, 13, HARD, tokens=5), attempt(16, 20, continued_at_tokens=5)],
            False,
            [
                ("chat alias", 1, "first", 10, 13, True),
                ("queue", 2, None, 13, 16, False),
                ("chat alias", 2, "continuation", 16, 20, False),
            ],
        ),
        (  # the hedge won: the first one is noted when it is cancelled, before it
            [attempt(13, 20, is_hedge=True), attempt(10, 15, Outcome.CLIENT)],
            False,
            [
                ("chat alias", 1, "first", 10, 15, False),
                ("chat alias", 2, "hedge", 13, 20, False),
            ],
        ),
        ([attempt(10, 20)], True, [("chat alias", 1, "fallback", 10, 20, False)]),
        ([], False, [("queue", 1, None, 10, 20, False)]),
    ],
    ids=["requeue and retry", "continuation", "hedge", "fallback", "never placed"],
)
def test_waits_and_attempts(
    attempts: list[Attempt], outside: bool, told: list[tuple[Any, ...]]
) -> None:
    assert tree(list(spans.of(record(*attempts, outside=outside), TOLD)))[1:] == told


@pytest.mark.parametrize(
    ("ending", "failed"),
    [
        (Ending("ok", 200), False),
        (Ending("client_error", 404, "model_not_found"), False),
        (Ending("client_disconnect"), False),
        (Ending("shed", 429, "server_is_overloaded"), False),
        (Ending("shed", 503, "no_replica_available"), True),
        (Ending("replica_error", 200, "replica_lost"), True),
    ],
)
def test_how_it_ended(ending: Ending, failed: bool) -> None:
    server = next(spans.of(record(ending=ending), TOLD))
    said = facts(server)
    assert server.failed is failed
    assert said.get(names.STATUS, 0) == ending.status
    assert said.get(names.ERROR_TYPE, "") == ending.code


def test_what_asked_for_no_replica_is_one_span() -> None:
    bare = Record(
        "req_1", "", "lab", Urgency.DEFAULT, 1, 10.0, Notes(), None, 10.5,
        Ending("client_error", 404, "model_not_found"), path="/v1/models/{id}",
    )  # fmt: skip
    [server] = spans.of(bare, TOLD)
    assert server.name == "POST /v1/models/{id}"
    assert names.POOL not in facts(server)


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v1/messages", "chat"),
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/rerank", "rerank"),
        ("/tokenize", "tokenize"),
    ],
)
def test_operations(path: str, operation: str) -> None:
    assert names.operation(path) == operation

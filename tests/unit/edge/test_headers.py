"""edge/core/headers: nothing of the caller's reaches an engine by accident, and the other way."""

from __future__ import annotations

import math
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from edge.core import headers
from edge.core.headers import Journey
from trimtab import trace

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "headers.md"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRIVATE = (
    *("authorization", "x-api-key", "api-key", "cookie", "x-request-id", "x-vllm-priority"),
    *("x-data-parallel-rank", "x-session-id", "session_id", "x-openwebui-chat-id"),
    *("connection", "te", "transfer-encoding", "upgrade", "keep-alive", "trailer", "host"),
    *("proxy-authorization", "proxy-connection", "forwarded", "x-forwarded-for", "via"),
    *("content-length", "content-encoding", "expect", "accept-encoding", "origin"),
)


@pytest.mark.parametrize("name", PRIVATE)
def test_what_is_the_callers_stays_here(name: str) -> None:
    for spelled in (name, name.title(), name.upper()):
        sent = headers.to_engine(CIMultiDict({spelled: "mine"}), "req_1", 1)
        assert sent == {"x-request-id": "req_1-1"}


def test_traces_go_on() -> None:
    caller = CIMultiDict({"TraceParent": TRACE, "tracestate": "a=1,b=2", "anthropic-beta": "x,y"})
    sent = headers.to_engine(caller, "req_1", 2)
    assert sent.pop("x-request-id") == "req_1-2"
    assert sent == {"traceparent": TRACE, "tracestate": "a=1,b=2", "anthropic-beta": "x,y"}


@pytest.mark.parametrize(
    "caller",
    [
        {"traceparent": TRACE, "Connection": "keep-alive, TraceParent"},
        {"traceparent": TRACE + "\r\nx-vllm-priority: -9"},
        {"traceparent": "00-0-0-00"},
        {"tracestate": "é"},
        {"tracestate": "a" * 513},
        {"tracestate": ""},
        {"anthropic-version": "a b"},
    ],
)
def test_what_is_for_us_alone_or_looks_wrong_does_not_go_on(caller: dict[str, str]) -> None:
    assert set(headers.to_engine(CIMultiDict(caller), "req_1", 1)) == {"x-request-id"}


@given(st.dictionaries(st.sampled_from([*PRIVATE, *headers.FORWARDED]), st.text()))
def test_whatever_a_caller_sends_the_engine_gets_clean_headers(caller: dict[str, str]) -> None:
    for name, value in headers.to_engine(CIMultiDict(caller), "req_1", 1).items():
        assert name in {*headers.FORWARDED, "x-request-id"}
        assert value.isascii()
        assert value.isprintable()
        assert len(value) <= 512


def test_an_answer_says_how_it_came_about_as_far_as_it_is_known() -> None:
    journey = Journey("req_1", came_s=10.0, fixed={"vary": "origin"})
    always = {"server": "trimtab", "x-request-id": "req_1", "vary": "origin"}
    assert journey.headers(10.0125) == always | {"openai-processing-ms": "12"}
    journey.placed("r0", 0.5)
    journey.placed("r1", 1.0)
    assert journey.headers(12.0) == always | {
        "openai-processing-ms": "2000",
        "x-trimtab-replica": "r1",
        "x-trimtab-attempts": "2",
        "x-trimtab-queue-ms": "1500",
    }
    journey.shows_route = False
    assert not any(name.startswith("x-trimtab") for name in journey.headers(12.0))


def test_every_header_of_an_answer_is_in_the_lists() -> None:
    journey = Journey("req_1", trace=trace.begin("", "", 7))
    journey.placed("r0", 0.0)
    assert {*journey.headers(1.0), "date"} == {
        *headers.ON_EVERY_ANSWER,
        *headers.ON_TRACED_ANSWERS,
        *headers.ON_ROUTED_ANSWERS,
    }


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("To the engine", tuple(headers.FORWARDED)),
        ("On every answer", headers.ON_EVERY_ANSWER),
        ("On answers to requests that are traced", headers.ON_TRACED_ANSWERS),
        ("On answers that went to a replica", headers.ON_ROUTED_ANSWERS),
        ("On refusals", headers.ON_REFUSALS),
    ],
)
def test_the_page_lists_what_there_is(title: str, names: tuple[str, ...]) -> None:
    section = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)) == names


def test_a_herd_is_told_different_times() -> None:
    told = [headers.retry_after_s(4.0, f"req_{i}") for i in range(2_000)]
    assert told == [headers.retry_after_s(4.0, f"req_{i}") for i in range(2_000)]
    tenths = [math.floor(10 * (seconds - 4.0) / 2.0) for seconds in told]
    assert all(140 <= tenths.count(i) <= 260 for i in range(10))


@given(st.floats(0, 1e6), st.text(max_size=8))
def test_times_to_come_back_are_within_what_sdks_obey(wait_s: float, request_id: str) -> None:
    told = headers.retry_after_s(wait_s, request_id)
    assert 0.2 <= told <= 90.0
    assert told >= min(wait_s, 90.0)


@pytest.mark.parametrize(
    ("given_id", "kept"),
    [("job-7", "job-7"), ("x" * 99, "x" * 64), ("a\x1b[2J", ""), ("é", ""), ("", "")],
)
def test_the_callers_own_id_is_fit_for_a_log(given_id: str, kept: str) -> None:
    assert headers.caller_id({"x-request-id": given_id}) == kept

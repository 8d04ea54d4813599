"""What is asked for: paths and queries."""

from __future__ import annotations

import pytest

from edge.alarm import Watch
from edge.http.body import Body
from edge.http.flow import Flow
from edge.http.request import QUERY_FIELDS_MAX, Request
from edge.http.writer import Writer
from tests.fakes.transport import FakeTransport


def request(target: str) -> Request:
    transport = FakeTransport()
    body = Body(transport, Watch())
    return Request("GET", target, {}, body, Writer(transport, Flow(), body))


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models?a=/b", "/v1/models"),
        ("/v1/models#a?b", "/v1/models"),
        ("/a%20b%2Fc", "/a b/c"),
        ("/a%ff%zz", "/a\ufffd%zz"),
        ("//evil/v1", "//evil/v1"),
        ("/../v1", "/../v1"),
        ("http://evil:1/v1/x?y", "/v1/x"),
        ("http://evil", "/"),
        ("http://[", "http://["),
        ("*", "*"),
    ],
)
async def test_paths_are_decoded_once_and_have_no_query(target: str, path: str) -> None:
    assert request(target).path == path


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {}),
        ("?model=a%2Fb+c&x=", {"model": "a/b c", "x": ""}),
        ("?model=a&model=b", {"model": "a"}),
        ("?" + "a=b&" * QUERY_FIELDS_MAX + "c=d", {}),
        ("?a=1#b=2", {"a": "1"}),
    ],
)
async def test_queries_are_read_once(query: str, fields: dict[str, str]) -> None:
    assert request("/v1" + query).query == fields

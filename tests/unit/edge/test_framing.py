"""Heads as llhttp lets them through: which are clear, which are not."""

from __future__ import annotations

import pytest

from edge.core import framing
from edge.core.framing import Field
from edge.core.problems import Problem

HOST = (b"Host", b"x")


def test_names_are_small_and_several_are_a_list() -> None:
    fields = [HOST, (b"Accept", b"a \t"), (b"ACCEPT", b"b"), (b"x-raw", b"\xe9")]
    assert framing.read("1.1", "GET", fields) == {"host": "x", "accept": "a, b", "x-raw": "é"}


@pytest.mark.parametrize(
    ("version", "method", "fields", "status"),
    [
        ("1.1", "GET", [], 400),
        ("1.1", "GET", [HOST, HOST], 400),
        ("1.1", "CONNECT", [HOST], 400),
        ("0.9", "GET", [HOST], 400),
        ("2.0", "GET", [HOST], 400),
        ("1.0", "POST", [(b"transfer-encoding", b"chunked")], 400),
        ("1.1", "POST", [HOST, (b"transfer-encoding", b"gzip, chunked")], 400),
        ("1.1", "POST", [HOST, (b"transfer-encoding", b"chunked"), (b"content-length", b"1")], 400),
        ("1.1", "GET", [HOST, (b"a", b"b" * framing.FIELD_LIMIT_BYTES)], 431),
        ("1.1", "GET", [HOST, *[(b"a", b"b" * 30_000)] * 3], 431),
        ("1.1", "GET", [HOST, *[(b"a", b"b")] * framing.FIELDS_MAX], 431),
    ],
)
def test_what_is_not_clear_or_too_much_is_refused(
    version: str, method: str, fields: list[Field], status: int
) -> None:
    found = framing.read(version, method, fields)
    assert isinstance(found, Problem)
    assert found.status == status


@pytest.mark.parametrize(("version", "coding"), [("1.0", b""), ("1.1", b"Chunked")])
def test_what_is_odd_but_clear_is_taken(version: str, coding: bytes) -> None:
    fields = [HOST, (b"transfer-encoding", coding)] if coding else []
    assert isinstance(framing.read(version, "POST", fields), dict)


ASKS = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "WebSocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_a_websocket_is_asked_for_as_rfc_6455_says() -> None:
    assert framing.is_websocket("GET", ASKS)
    assert not framing.is_websocket("POST", ASKS)
    for name in ASKS:
        assert not framing.is_websocket("GET", ASKS | {name: "x"}), name
        assert not framing.is_websocket("GET", {k: v for k, v in ASKS.items() if k != name}), name


def test_a_head_is_written_as_it_came() -> None:
    said = framing.head("GET", b"/a?b", "1.1", [HOST, (b"A", b"b")])
    assert said == b"GET /a?b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"

"""edge/core/sse: whole events whatever the splits, and the truth about their meaning."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.core import sse
from edge.core.sse import Kind, Scanner
from tests.fakes.recorded import body_of

CHUNK = b'data: {"id":"c","choices":[{"index":0,"text":"caf\xc3\xa9","finish_reason":null}]}\n\n'
ERROR = b'data: {"error": {"message": "busy", "type": "Service Unavailable", "code": 503}}\n\n'


def feed(scanner: Scanner, stream: bytes, cuts: list[int]) -> list[sse.Event]:
    """In pieces."""
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    return [event for piece in pieces for event in scanner.feed(piece)]


@given(st.lists(st.integers(0, 400), max_size=20))
def test_splits_anywhere_change_nothing(cuts: list[int]) -> None:
    stream = b": keep-alive\n\n" + CHUNK * 2 + ERROR + sse.DONE
    events = feed(Scanner(singly=True), stream, cuts)
    kinds = [event.kind for event in events]
    assert kinds == [Kind.COMMENT, Kind.DATA, Kind.DATA, Kind.ERROR, Kind.DONE]
    assert b"".join(event.raw for event in events) == stream


PARTS = [
    *(b": keep-alive\n\n", CHUNK, CHUNK, CHUNK, ERROR, sse.DONE, b"data: a\ndata: b\n\n"),
    *(b"data:\n\n", b"data: crlf\r\n\r\n", b"event: x\ndata: {}\n\n", b"id: 1\n\n"),
    b'data: {"choices":[{"text":"","finish_reason":"abort"}]}\n\n',
    b'data: {"choices":[{"text":"\\"error\\" \\"abort\\" data: [DONE]"}]}\n\n',
]


@example([CHUNK, b"data: crlf\r\n\r\n"], [])
@given(st.lists(st.sampled_from(PARTS), max_size=8), st.lists(st.integers(0, 1_000), max_size=20))
def test_plain_data_that_comes_as_one_is_what_it_is_singly(
    parts: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(parts)
    singly = feed(Scanner(singly=True), stream, cuts)
    assert [event.raw for event in singly] == parts
    kinds: list[Kind] = []
    for event in feed(Scanner(), stream, cuts):
        assert event.number == 1 or event.kind is Kind.DATA
        assert event.raw == b"".join(parts[len(kinds) : len(kinds) + event.number])
        kinds += [event.kind] * event.number
    assert kinds == [event.kind for event in singly]


def test_plain_data_comes_as_one() -> None:
    assert [event.number for event in Scanner().feed(CHUNK * 5 + CHUNK[:9])] == [5]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b": anything\n\n", Kind.COMMENT),
        (sse.DONE, Kind.DONE),
        (CHUNK, Kind.DATA),
        (ERROR, Kind.ERROR),
        (b'data: {"error":"text"}\n\n', Kind.ERROR),
        (b'data: {"error":{"message":"m","code":"500"}}\r\n\r\n', Kind.ERROR),
        (b'data: {"choices":[{"text":"","finish_reason":"abort"}]}\n\n', Kind.ABORT),
        (b'data: {"choices":[{"text":"x","finish_reason":"stop"}]}\n\n', Kind.DATA),
        # the words stand in generated text, not in the fields
        (b'data: {"choices":[{"text":"\\"finish_reason\\":\\"abort\\""}]}\n\n', Kind.DATA),
        (b'data: {"choices":[{"text":"data: [DONE]"}]}\n\n', Kind.DATA),
        (b'data: {"choices":[{"text":"{\\"error\\": 1}"}]}\n\n', Kind.DATA),
        (b'data: {"error": tru\n\n', Kind.DATA),
    ],
)
def test_kinds(raw: bytes, kind: Kind) -> None:
    assert sse.read(raw).kind is kind


def test_an_error_says_its_status() -> None:
    assert sse.read(ERROR).status == 503
    assert sse.read(ERROR).message == "busy"
    assert sse.read(b'data: {"error":{"message":"m","code":"oops"}}\n\n').status == 500


@pytest.mark.parametrize(
    ("recording", "kinds"),
    [
        ("comp-stream.http", {Kind.DATA, Kind.DONE}),
        ("chat-stream.http", {Kind.DATA, Kind.DONE}),
        ("chat-stream-usage.http", {Kind.DATA, Kind.USAGE, Kind.DONE}),
        ("burst-reject-stream-200.http", {Kind.ERROR, Kind.DONE}),
        ("drain-new-stream.http", {Kind.DONE}),
        ("sigkill-enginecore-stream-0.http", {Kind.DATA, Kind.ERROR, Kind.DONE}),
        ("sse-keepalive-waiting.http", {Kind.COMMENT, Kind.DATA, Kind.DONE}),
    ],
)
def test_recorded_streams(recording: str, kinds: set[Kind]) -> None:
    body = body_of(recording)
    events = Scanner().feed(body)
    assert {event.kind for event in events} == kinds
    assert b"".join(event.raw for event in events) == body


def test_an_event_without_an_end_is_bounded() -> None:
    scanner = Scanner()
    scanner.feed(b"x" * sse.EVENT_LIMIT_BYTES)
    with pytest.raises(sse.OversizedEventError):
        scanner.feed(b"x")


def test_plain_answers_that_were_aborted() -> None:
    assert sse.aborted(b'{"choices":[{"index":0,"text":"","finish_reason":"abort"}]}')
    assert not sse.aborted(b'{"choices":[{"index":0,"text":"","finish_reason":"stop"}]}')
    assert not sse.aborted(b'{"choices":[{"text":"\\"finish_reason\\": \\"abort\\""}]}')
    assert not sse.aborted(b"not json")

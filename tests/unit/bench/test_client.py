"""The client's manners are the official SDK's."""

from __future__ import annotations

import random

import pytest

from bench.goodput.client import End, Outcome, advised_wait_s, backoff_s, should_retry, take
from bench.goodput.scenario import Arrival


@pytest.mark.parametrize(
    ("status", "headers", "again"),
    [
        (429, {}, True),
        (408, {}, True),
        (503, {}, True),
        (400, {}, False),
        (503, {"x-should-retry": "false"}, False),
        (400, {"x-should-retry": "true"}, True),
        (503, {"x-should-retry": "perhaps"}, True),
    ],
)
def test_what_is_tried_again(status: int, headers: dict[str, str], again: bool) -> None:
    assert should_retry(status, headers) is again


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "2", "retry-after-ms": "150"}, 0.15),
        ({"retry-after": "soon"}, None),
    ],
)
def test_advice(headers: dict[str, str], wait_s: float | None) -> None:
    assert advised_wait_s(headers) == wait_s


def test_own_wait_doubles_with_jitter() -> None:
    dice = random.Random(1)
    for retry, most_s in ((0, 0.5), (1, 1.0), (10, 8.0)):
        waits = [backoff_s(retry, dice) for _ in range(200)]
        assert min(waits) >= 0.75 * most_s
        assert max(waits) <= most_s
        assert max(waits) - min(waits) > 0.2 * most_s


ROLE = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
TEXT = b'{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}'
LAST = b'{"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"length"}],"error":null}'
ABORT = b'{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"abort"}]}'
ERROR = b'{"error":{"message":"no room","code":503}}'


@pytest.mark.parametrize(
    ("events", "end", "tokens"),
    [
        ([], End.BROKEN, 0),
        ([ROLE, TEXT], End.BROKEN, 1),
        ([ROLE, TEXT, LAST], End.FINISHED, 2),
        ([ROLE, TEXT, ABORT], End.BROKEN, 1),
        ([ROLE, TEXT, ERROR], End.ERROR_EVENT, 1),
        ([ERROR, LAST], End.ERROR_EVENT, 1),
        ([b"no JSON"], End.BROKEN, 0),
    ],
)
def test_how_a_stream_ends(events: list[bytes], end: End, tokens: int) -> None:
    outcome = Outcome(Arrival(0.0, "", 2), end=End.BROKEN)
    for event in events:
        take(event, outcome, 1.0)
    assert (outcome.end, len(outcome.token_times_s)) == (end, tokens)

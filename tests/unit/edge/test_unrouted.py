"""The record of a request that asked for no replica."""

from __future__ import annotations

import pytest

from edge.core import unrouted
from edge.core.decisions import Ending
from edge.core.headers import Journey


@pytest.mark.parametrize(
    ("status", "code", "ending"),
    [
        (0, "", Ending("client_disconnect")),
        (200, "", Ending("ok", 200)),
        (401, "invalid_api_key", Ending("client_error", 401, "invalid_api_key")),
        (500, "internal_error", Ending("internal_error", 500, "internal_error")),
        (503, "no_replica_available", Ending("shed", 503, "no_replica_available")),
    ],
)
def test_endings(status: int, code: str, ending: Ending) -> None:
    assert unrouted.ending(status, code) == ending


def test_what_is_known_of_it() -> None:
    journey = Journey("req_1", 10.0, path="/v1/models", tenant="lab", caller_id="mine")
    record = unrouted.record(journey, Ending("ok", 200), 10.5, 1_000.0)
    assert (record.came_ms, record.since_s, record.ended_s) == (999_500, 10.0, 10.5)
    assert (record.tenant, record.path, record.caller_id) == ("lab", "/v1/models", "mine")
    assert (record.pool, record.model, record.notes.attempts) == ("", "", [])

"""How a request went, in one line, by what its edge kept."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.core import request_account
from tests.fakes.accounts import REFUSED, RETRIED, request
from trimtab.views import Concern, EdgeRecord

GONE = {"outcome": "client_disconnect", "status": 0, "first_byte_ms": None}
WAITED = {"predicted_wait_ms": 900, "waited_ms": 5_000}
BROKEN = {"replica": "gpu1", "picked_ms": 0, "ended_ms": 40, "outcome": "hard", "fault": "cut"}
FAILED = {"outcome": "replica_error", "status": 502, "code": "replica_lost", "attempts": [BROKEN]}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "answered": (RETRIED, "was answered by gpu1 after 29.3 s (first token after 4.9 s, 4.1 s in"),
    "refused at once": (REFUSED, "it would have waited 14.2 s for gpt-oss-120b, and 5.0 s is"),
    "waited in vain": (REFUSED | WAITED, "after 1 ms: it waited 5.0 s for gpt-oss-120b in vain"),
    "nobody open": (
        REFUSED | {"code": "no_replica_available", "predicted_wait_ms": None},
        "was refused with 503 no_replica_available after 1 ms: no replica of gpt-oss-120b was open",
    ),
    "caller left": (RETRIED | GONE, "was left by its caller after 29.3 s, on gpu1"),
    "left the queue": (RETRIED | GONE | {"attempts": []}, "after 29.3 s, while it waited"),
    "its own fault": (
        REFUSED | {"outcome": "client_error", "status": 422, "code": "request_quarantined"},
        "was turned down with 422 request_quarantined after 1 ms: the request itself is at fault",
    ),
    "failed": (
        RETRIED | FAILED,
        "failed with 502 replica_lost after 29.3 s (first token after 4.9 s, 4.1 s in the queue): "
        "the connection was cut, which is HARD on gpu1",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_line_says_how_it_ended_and_why(name: str) -> None:
    record, words = CASES[name]
    found = request(record)
    assert words in found.headline
    assert (found.concern is Concern.FINE) is (record["outcome"] == "ok")
    assert [step.after_ms for step in found.steps] == sorted(s.after_ms for s in found.steps)


def test_who_failed_is_worth_a_look_and_many_candidates_are_cut() -> None:
    many = [{"replica": f"r{n}"} for n in range(20)]
    found = request(RETRIED | FAILED | {"attempts": [BROKEN | {"among": many}]})
    assert found.advice == ("ctl explain replica gpu1",)
    (picked,) = [step.text for step in found.steps if step.what == "pick"]
    assert picked.endswith("| 12 more]")


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b'{"request_id": 7}', b"\xff"])
def test_what_is_no_record_is_none(content: bytes) -> None:
    assert request_account.read(content) is None


def test_what_an_edge_says_is_safe_to_print_and_the_newest_of_several_counts() -> None:
    first = request_account.read(b'{"request_id":"a","pool":"m","tenant":"t","came_ms":1}')
    second = request_account.read(
        b'{"request_id":"b","pool":"m","tenant":"t","came_ms":2,"code":"\\u001b[2J"}'
    )
    assert first is not None
    assert second is not None
    both = [(second, EdgeRecord("e2", "{}")), (first, EdgeRecord("e1", "{}"))]
    found = request_account.tell(both)
    assert (found.name, len(found.records)) == ("b", 2)
    assert "\x1b" not in str(found)

"""edge/core/decisions: bounded whatever comes, the odd outlive the dull, and what people read."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import decisions
from edge.core.decisions import Attempt, Decisions, Ending, Notes, Record
from trimtab.model import Outcome, Urgency
from trimtab.policy.pick import Candidate
from trimtab.policy.queue import Forecast

AMONG = (Candidate("a", 8, 2, 1, 4.0), Candidate("b", 8, 7))


def attempt(replica: str, picked_s: float, ended_s: float, outcome: Outcome) -> Attempt:
    return Attempt(replica, picked_s, ended_s, outcome, "", 200, AMONG)


OK = attempt("a", 10.0, 12.0, Outcome.OK)


def record(name: str, outcome: str = "ok", *attempts: Attempt) -> Record:
    """One that ended so; came at 10 s and lasted for 2.5 s."""
    notes = Notes(None, list(attempts))
    ending = Ending(outcome)
    return Record(name, "m", "t", Urgency.BATCH, 1, 10.0, notes, None, 12.5, ending)


def kept(most: int = 5, most_odd: int = 3, most_bytes: int = 10**9) -> Decisions:
    """Smaller than in the edge."""
    made = Decisions()
    made._latest = decisions._Ring(most, most_bytes)
    made._odd = decisions._Ring(most_odd, most_bytes)
    return made


@pytest.mark.parametrize(
    ("outcome", "attempts", "odd"),
    [
        ("ok", [OK], False),
        ("client_error", [OK], False),
        ("client_disconnect", [], False),
        ("ok", [OK, OK], True),
        ("shed", [], True),
        ("replica_error", [OK], True),
        ("timeout", [OK], True),
        ("internal_error", [], True),
    ],
)
def test_what_is_odd(outcome: str, attempts: list[Attempt], odd: bool) -> None:
    assert record("r", outcome, *attempts).odd is odd


def test_what_people_read() -> None:
    tries = [
        Attempt("a", 11.0, 11.25, Outcome.OVERLOAD, "status", 503, AMONG, at_home=False),
        attempt("b", 11.5, 12.0, Outcome.OK),
    ]
    notes = Notes(Forecast(1.5, 10.0), tries)
    ending = Ending("shed", 503, "server_is_overloaded", 1.25)
    came_ms = 1_700_000_000_000
    one = Record("req_1", "m", "t", Urgency.BATCH, came_ms, 10.0, notes, 11.75, 12.5, ending)
    seen = decisions.view(one)
    first, second = msgspec.json.decode(msgspec.json.encode(seen.pop("attempts")))
    assert seen == {
        "request_id": "req_1",
        "caller_id": "",
        "pool": "m",
        "tenant": "t",
        "urgency": "batch",
        "path": "",
        "stream": False,
        "prompt_tokens": 0,
        "came_ms": came_ms,
        "predicted_wait_ms": 1500,
        "wait_budget_ms": 10_000,
        "waited_ms": 1750,
        "not_continued": "",
        "outside": False,
        "first_byte_ms": 1750,
        "ended_ms": 2500,
        "outcome": "shed",
        "status": 503,
        "code": "server_is_overloaded",
        "retry_after_ms": 1250,
    }
    assert (second["replica"], second["outcome"], second["at_home"]) == ("b", "ok", None)
    assert first == {
        "replica": "a",
        "picked_ms": 1000,
        "ended_ms": 1250,
        "outcome": "overload",
        "fault": "status",
        "status": 503,
        "at_home": False,
        "continued_at_tokens": None,
        "tokens": 0,
        "among": [
            {"replica": "a"} | _load(inflight=2, waiting=1, penalty_slots=4.0, score=0.875),
            {"replica": "b"} | _load(inflight=7, waiting=0, penalty_slots=0.0, score=0.875),
        ],
    }


def _load(**load: float) -> dict[str, float]:
    return {"slots": 8} | load


def test_what_is_kept_is_what_was() -> None:
    tries = [OK, attempt("b", 1e9, 2e9, Outcome.OVERLOAD)]
    one = record("r", "timeout", *tries)
    one = msgspec.structs.replace(one, notes=Notes(Forecast(math.inf, 1.0), tries, "tools", True))
    one = msgspec.structs.replace(one, caller_id="mine", client="::1", first_byte_s=0.5)
    made = kept()
    made.add(one)
    made.add(record("another"))
    got = made.get("r")
    assert got is not None
    assert decisions.view(got) == decisions.view(one)
    assert (got.client, got.notes.forecast) == (one.client, one.notes.forecast)
    assert made.called("mine") == got
    assert made.called("min") is made.called("") is None
    assert made.newest(9, "timeout") == [got]


def test_what_never_happened_is_null() -> None:
    seen = decisions.view(record("r", "shed"))
    names = ("predicted_wait_ms", "wait_budget_ms", "first_byte_ms", "retry_after_ms")
    assert [seen[name] for name in names] == [None] * 4
    assert seen["waited_ms"] == seen["ended_ms"] == 2500


def test_a_wait_without_end_is_still_json() -> None:
    one = record("r", "shed")
    one.notes.forecast = Forecast(float("inf"), 1.0)
    assert decisions.view(one)["predicted_wait_ms"] == 10**12


def test_the_newest_first_and_those_that_ended_so() -> None:
    made = kept(most=2)
    for name, outcome in (("1", "shed"), ("2", "timeout"), ("3", "ok"), ("4", "shed")):
        made.add(record(name, outcome))
    assert [r.request_id for r in made.newest(9)] == ["4", "3", "2", "1"]
    assert [r.request_id for r in made.newest(3)] == ["4", "3", "2"]
    assert [r.request_id for r in made.newest(9, "shed")] == ["4", "1"]
    assert made.newest(0) == []


@given(st.lists(st.booleans(), max_size=60))
def test_the_latest_of_all_and_then_the_latest_odd_ones_are_found(odd: list[bool]) -> None:
    made = kept()
    for number, is_odd in enumerate(odd):
        made.add(record(str(number), "shed" if is_odd else "ok", OK))
    older, latest = range(len(odd))[:-5], range(len(odd))[-5:]
    expected = [*[number for number in older if odd[number]][-3:], *latest]
    assert [n for n in range(len(odd)) if made.get(str(n))] == expected
    assert [int(r.request_id) for r in made.newest(99)] == expected[::-1]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.integers(0, 40)), max_size=60),
    st.integers(0, 30_000),
)
def test_no_bound_is_ever_exceeded(shapes: list[tuple[bool, int, int]], most_bytes: int) -> None:
    made = kept(most_bytes=most_bytes)
    for number, (is_odd, tries, candidates) in enumerate(shapes):
        one = msgspec.structs.replace(OK, among=AMONG[:1] * candidates)
        made.add(record(str(number), "shed" if is_odd else "ok", *[one] * tries))
        for ring, most in ((made._latest, 5), (made._odd, 3)):
            sizes = [len(r) + decisions.ENTRY_BYTES for r in ring.records.values()]
            assert len(sizes) <= most
            assert ring.size_bytes == sum(sizes) <= most_bytes
        odd = [made.get(name) for name in made._odd.records]
        assert all(one is not None and one.odd for one in odd)
        assert made._are_odd <= made._latest.records.keys()

"""What an edge remembers of a tenant and of a replica."""

from __future__ import annotations

from edge.core import told
from edge.core.decisions import LATEST_MAX, Attempt, Ending, Notes, Record
from tests.fakes.dice import Loaded
from trimtab.model import Outcome, Urgency
from trimtab.policy.pick import Candidate
from trimtab.policy.queue import Forecast, Queue, Ticket
from trimtab.views import ReplicaAtEdge, TenantInPool

NOW_S = 1_000.0


def record(
    name: str,
    outcome: str,
    *attempts: Attempt,
    tenant: str = "t",
    ago_s: float = 1.0,
    code: str = "",
) -> Record:
    notes = Notes(Forecast(12.0, 5.0), list(attempts))
    ended_s = NOW_S - ago_s
    ending = Ending(outcome, 503, code)
    return Record(name, "m", tenant, Urgency.DEFAULT, 1, 1.0, notes, None, ended_s, ending)


def attempt(to: str, at_home: bool | None, **inflight: int) -> Attempt:
    among = [Candidate(name, 8, number) for name, number in inflight.items()]
    return Attempt(to, 1.0, 2.0, Outcome.OK, "", 200, among, at_home)


def test_what_ended_and_what_waits() -> None:
    queue = Queue(100)
    for number, who in enumerate(("t", "t", "other")):
        ticket = Ticket(number, NOW_S - 10.0 + number, tenant=who)
        assert queue.offer(ticket, NOW_S, Loaded(), lambda: True) is None
    records = [
        record("a", "ok"),
        record("b", "shed", code="no_replica_available"),
        record("c", "replica_error"),
        record("d", "client_disconnect"),
        record("e", "ok", tenant="other"),
        record("f", "shed", ago_s=told.LATELY_S + 1.0),
    ]
    found = told.tenant("t", told.lately(records, NOW_S), [("m", queue), ("n", Queue(1))], NOW_S)
    (pool,) = found.pools
    assert pool == TenantInPool(
        *("m", 2, 10_000, 3, 4),
        answered=1,
        refused=1,
        failed=1,
        left=1,
        nobody_open=1,
        predicted_wait_ms=12_000,
        wait_budget_ms=5_000,
        latest_odd="b",
    )
    assert found.span_ms == 300_000
    gone = told.tenant("t", told.lately(records, NOW_S), [], NOW_S)
    assert gone.pools[0].requests == 4, "also of a pool without a queue"


def test_of_many_records_the_span_is_what_is_kept() -> None:
    records = [record("a", "ok", ago_s=n / LATEST_MAX) for n in range(LATEST_MAX)]
    assert told.tenant("t", records, [], NOW_S).span_ms == 999


def test_why_a_replica_was_not_picked() -> None:
    attempts = [
        attempt("r1", None, r1=1, r2=2),
        attempt("r2", True, r1=1, r2=2),
        attempt("r2", True, r1=3, r2=2),
        attempt("r2", None, r1=8, r2=2),
        attempt("r2", None, r2=2),
    ]
    found = told.replica("r1", [record("a", "ok", *attempts)], NOW_S)
    expected = {"picked": 1, "at_home_elsewhere": 1, "without_room": 1, "busier": 1}
    assert found == ReplicaAtEdge(**expected, span_ms=300_000)

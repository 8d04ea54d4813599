"""edge/tracing: what is kept for export, and its bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge import tracing
from edge.core.decisions import Ending, Notes, Record
from edge.tracing import ODD_PER_S, Tracer
from trimtab import trace
from trimtab.model import Urgency
from trimtab.runtime.otlp_settings import Otlp

SAMPLED = trace.begin("", "", 1, 1.0)
UNSAMPLED = trace.begin("", "", 1, 0.0)


def record(
    place: trace.Trace | None,
    outcome: str = "ok",
    first_byte_s: float | None = None,
    ended_s: float = 12.0,
) -> Record:
    """One that came at 10 s."""
    ending = Ending(outcome, 200)
    return Record(
        *("req_1", "demo", "lab", Urgency.BATCH, 1, 10.0),
        *(Notes(), first_byte_s, ended_s, ending),
        trace=place,
    )


def tracer(dropped: Callable[[], None] = lambda: None) -> Tracer:
    return Tracer(Otlp("http://x:1", slow_s=5.0), dropped)


@pytest.mark.parametrize(
    ("ended", "kept"),
    [
        (record(None, "replica_error"), 0),
        (record(SAMPLED), 1),
        (record(UNSAMPLED), 0),
        (record(UNSAMPLED, "shed"), 1),
        (record(UNSAMPLED, "client_error"), 0),
        (record(UNSAMPLED, ended_s=16.0), 1),
        (record(UNSAMPLED, first_byte_s=11.0, ended_s=16.0), 0),
        (record(UNSAMPLED, first_byte_s=15.5, ended_s=16.0), 1),
    ],
    ids=["no key", "sampled", "not sampled", "refused", "wrong", "slow", "long", "late"],
)
def test_what_is_told(ended: Record, kept: int) -> None:
    made = tracer()
    made.ended(ended)
    assert len(made.kept) == kept


def test_a_bad_second_is_not_told_in_full() -> None:
    made = tracer()
    for second in (100.0, 101.0):
        for number in range(100):
            made.ended(record(UNSAMPLED, "shed", ended_s=second + number / 1000))
    assert len(made.kept) == 2 * ODD_PER_S


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "KEPT_MAX", 5)
    dropped: list[int] = []
    made = tracer(lambda: dropped.append(1))
    for _ in range(8):
        made.ended(record(SAMPLED))
    assert (len(made.kept), len(dropped)) == (5, 3)

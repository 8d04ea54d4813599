"""edge/core/arrivals: what is kept of a request, and that it stays bounded."""

from __future__ import annotations

import msgspec
import pytest

from edge.core import arrivals
from edge.core.arrivals import NO_FIRST_S, Arrivals, End, Row
from edge.core.decisions import Attempt, Ending, Notes, Record
from trimtab.model import Outcome, Urgency


def attempt(picked_s: float, tokens: int = 0, prompt_tokens: int = 0) -> Attempt:
    return Attempt(
        *("r", picked_s, picked_s + 1.0, Outcome.OK, "", 200, ()),
        tokens=tokens,
        prompt_tokens=prompt_tokens,
    )


def record(
    *attempts: Attempt,
    outcome: str = "ok",
    first_byte_s: float | None = None,
    pool: str = "m",
    tenant: str = "t",
    since_s: float = 10.0,
) -> Record:
    """One that came at 10 s and ended at 20 s."""
    notes, ending = Notes(None, list(attempts)), Ending(outcome)
    return Record(
        *("req", pool, tenant, Urgency.BATCH, 1, since_s, notes, first_byte_s, since_s + 10.0),
        ending,
        stream=True,
        prompt_tokens=7,
    )


def kept(what: Record, *, is_pass: bool = False) -> Row:
    memory = Arrivals(0.0)
    memory.add(msgspec.structs.replace(what, retries=2, is_pass=is_pass))
    (row,) = memory.block(0).of("m", 0.0)
    return row


@pytest.mark.parametrize(
    ("what", "end", "wait_s", "first_s", "tokens"),
    [
        (record(attempt(10.5, 40), first_byte_s=11.0), End.SERVED, 0.5, 1.0, 40),
        (record(attempt(10.0, 40)), End.SERVED, 0.0, NO_FIRST_S, 40),
        (record(outcome="shed"), End.REFUSED, 10.0, NO_FIRST_S, 0),
        (record(outcome="client_disconnect"), End.LEFT, 10.0, NO_FIRST_S, 0),
        (record(attempt(10.0), outcome="timeout"), End.FAILED, 0.0, NO_FIRST_S, 0),
        (record(attempt(10.0), outcome="of a newer kind"), End.FAILED, 0.0, NO_FIRST_S, 0),
        (record(attempt(10.0), outcome="client_error"), End.REJECTED, 0.0, NO_FIRST_S, 0),
        # tried twice before the first data: it waited for the second try
        (record(attempt(10.0), attempt(12.0, 9), first_byte_s=13.0), End.SERVED, 2.0, 3.0, 9),
        # cut in the middle and continued: it waited for the first try, and has the tokens of both
        (record(attempt(10.0, 5), attempt(15.0, 6), first_byte_s=11.0), End.SERVED, 0.0, 1.0, 11),
    ],
)
def test_what_is_kept(what: Record, end: End, wait_s: float, first_s: float, tokens: int) -> None:
    row = kept(what)
    assert row == Row(10.0, wait_s, first_s, 10.0, 7, tokens, 0, 0, end, 1, 2)


def test_a_prompt_counts_as_its_first_engine_says() -> None:
    assert kept(record(attempt(10.0, 1, 99), attempt(12.0, 1, 120))).prompt_tokens == 99


def test_a_pass_makes_one_token() -> None:
    assert kept(record(attempt(10.0, 420)), is_pass=True).output_tokens == 1
    assert kept(record(outcome="shed"), is_pass=True).output_tokens == 0


@pytest.mark.parametrize(
    ("said", "retries"),
    [({}, 0), ({"x-stainless-retry-count": "2"}, 2), ({"x-stainless-retry-count": "-1"}, 0)]
    + [({"x-stainless-retry-count": word}, 0) for word in ("", "two", "9" * 40)],
)
def test_how_often_a_caller_has_tried(said: dict[str, str], retries: int) -> None:
    assert arrivals.retry(said) == retries


def test_only_what_was_asked_for_is_told() -> None:
    memory = Arrivals(0.0)
    for since_s, pool, tenant in ((1.0, "m", "a"), (2.0, "n", "a"), (3.0, "m", "b")):
        memory.add(record(since_s=since_s, pool=pool, tenant=tenant))
    block = memory.block(0)
    assert [row.since_s for row in block.of("m", 0.0)] == [1.0, 3.0]
    assert [row.since_s for row in block.of("m", 2.0)] == [3.0]
    assert list(block.of("x", 0.0)) == []
    names = {index: name for (name, _), index in block.tenants.items()}
    assert [names[row.who] for row in block.of("m", 0.0)] == ["a", "b"]


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "BLOCK_ROWS", 10)
    monkeypatch.setattr(arrivals, "ROWS_MAX", 30)
    memory = Arrivals(5.0)
    assert memory.forgot_before_s == 5.0, "who came before it began is not known"
    for number in range(100):
        memory.add(record(since_s=float(number)))
        assert len(memory) <= 30
    assert (memory.oldest, memory.newest) == (8, 10)
    assert [row.since_s for row in memory.block(0).of("m", 0.0)] == [80.0 + n for n in range(10)]
    assert memory.forgot_before_s == 79.0 + 10.0
    assert len(memory.block(11)) == 0


def test_a_quiet_hour_makes_forget_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "BLOCK_ROWS", 2)
    memory = Arrivals(0.0)
    for since_s in (1.0, 2.0, 3.0 + arrivals.KEPT_S, 4.0 + arrivals.KEPT_S):
        memory.add(record(since_s=since_s))
    assert memory.oldest == 1
    assert memory.forgot_before_s == 12.0

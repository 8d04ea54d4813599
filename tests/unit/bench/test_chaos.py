"""bench/chaos: a run can be told again by its seed, and its judge misses nothing."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from bench.chaos import judge
from bench.chaos.callers import Ask, End, Heard, Manner
from bench.chaos.faults import CALM_S, DECK, schedule
from bench.chaos.judge import Growth


def ask(end: End = End.WHOLE, what: str = "", status: int = 200, number: int = 1) -> Ask:
    made = Ask(number, "Why?", 3, stream=True, chat=False, manner=Manner.PATIENT)
    made.end, made.what, made.status = end, what, status
    return made


def record(outcome: str = "ok", code: str = "", status: int = 200, number: int = 1) -> Any:
    said = {"caller_id": f"chaos-{number}", "outcome": outcome, "code": code, "status": status}
    return said | {"attempts": [{}]}


def counted(**outcomes: int) -> dict[str, float]:
    name = 'trimtab_edge_requests_total{model="demo",outcome="%s"}'
    made = {name % outcome: float(count) for outcome, count in outcomes.items()}
    return made | {'trimtab_edge_upstream_attempts_total{replica="r"}': sum(made.values())}


def test_a_seed_is_a_run_and_faults_do_not_overlap() -> None:
    strikes = schedule(7, 600.0)
    assert strikes == schedule(7, 600.0) != schedule(8, 600.0)
    assert len({strike.fault.title for strike in strikes}) == len(DECK)
    for before, after in itertools.pairwise(strikes):
        assert after.at_s >= before.healed_s + CALM_S
    assert strikes[-1].healed_s + CALM_S <= 600.0


@pytest.mark.parametrize(
    ("asked", "records", "wrong"),
    [
        (ask(), [record()], ""),
        (ask(), [], "0 records"),
        (ask(), [record(), record()], "2 records"),
        (ask(), [record("client_error")], "edge: client_error"),
        (ask(End.LEFT), [record("client_disconnect", status=0)], ""),
        (ask(End.LEFT, status=0), [], ""),  # it had gone before the edge read it
        (ask(End.LEFT), [], "0 records"),
        (ask(End.REFUSED, "full", 503), [record("shed", "full", 503)], ""),
        (ask(End.REFUSED, "full", 503), [record("shed", "lost", 502)], "edge: shed 502 lost"),
        (ask(End.TOLD, "lost"), [record("replica_error", "lost")], ""),
        (ask(End.TOLD, "full"), [record("shed", "full")], ""),  # after comments
        (ask(End.TOLD, "lost"), [record()], "edge: ok"),
        (ask(End.CUT), [record("replica_error", "lost")], "cut"),
        (ask(End.LIE, "another text"), [record()], "lie another text"),
        (ask(End.NEVER), [record()], "never"),
    ],
)
def test_two_witnesses(asked: Ask, records: list[Any], wrong: str) -> None:
    found = judge.disagreement(asked, records)
    assert (wrong in found) if wrong else not found


def test_counters_must_agree() -> None:
    asks, records = [ask(), ask(number=2)], [record(), record(number=2)]
    assert judge.violations(asks, records, counted(ok=2)) == []
    assert "its records say" in judge.violations(asks, records, counted(ok=1, shed=1))[0]
    assert len(judge.violations(asks, records, counted(ok=3))) == 3
    gone = ask(End.LEFT, status=0, number=3)
    assert judge.violations([*asks, gone], records, counted(ok=2)) == []


def heard(*events: object, done: bool = True) -> Heard:
    found = Heard()
    for event in events:
        found.take(b"data: " + json.dumps(event).encode() + b"\n\n")
    if done:
        found.take(b"data: [DO")  # in two parts
        found.take(b"NE]\n\n: comment\n\n")
    return found


def test_what_looks_whole() -> None:
    text = ask().expected()
    said = {"choices": [{"text": text, "finish_reason": "length"}]}
    usage = {"choices": [], "usage": {"completion_tokens": 3}}
    assert heard(said, usage).flaw(ask()) == ""
    assert heard(said, usage, done=False).flaw(ask()).startswith("a clean end of a part")
    aborted = {"choices": [{"text": text, "finish_reason": "abort"}]}
    assert heard(aborted, usage).flaw(ask()).startswith("a clean end of a part")
    assert heard(said).flaw(ask()) == "usage of None for 3 tokens"
    other = {"choices": [{"text": "no", "finish_reason": "length"}]}
    assert heard(other, usage).flaw(ask()) == "another text"
    error = {"error": {"code": "replica_lost"}}
    assert heard(said, error, done=False).flaw(ask()) == "a clean end after an error"


def test_growth_is_what_comes_after_the_warm_up() -> None:
    warm = [(float(s), min(80.0, 60.0 + s)) for s in range(100)]
    assert not Growth(warm, 1.0).flaw
    assert Growth(warm, 1.0).each_minute_mb == [60.0, 80.0]
    leak = [(s, mb + s / 5) for s, mb in warm]
    assert "grew from" in Growth(leak, 1.0).flaw
    assert Growth(leak, 1.0).mb_per_hour == pytest.approx(720)

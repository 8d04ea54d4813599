"""What happened, bounded, for people."""

from __future__ import annotations

from controlplane.core.events import Noted, Transition
from controlplane.core.journal import EVENTS_MAX, Journal
from trimtab.model import EngineState, Serving
from trimtab.views import Detail

STATES = (EngineState.READY, EngineState.STALLED)


def test_transitions_say_from_what_to_what_and_why() -> None:
    journal = Journal()
    servings = (Serving.OPEN, Serving.CLOSED)
    journal.take(Transition("r1", STATES, servings, "no token", {"running": 7, "epoch": None}), 5)
    journal.take(Transition("r1", STATES, (Serving.LOST,) * 2, "no token", {}), 6)
    first, second = journal.after(0)[0]
    assert (first.number, first.at_ms, first.about, first.what) == (1, 5, "r1", "serving")
    assert first.text == "OPEN -> CLOSED, engine READY -> STALLED: no token"
    assert first.details == (Detail("running", "7"),)
    assert (second.what, second.text) == ("engine", "READY -> STALLED: no token")


def test_what_else_was_noted() -> None:
    journal = Journal()
    moved = {"replica": "r1", "pool": "m", "from": "HEALTHY", "to": "EJECTED", "cause": "it fails"}
    journal.take(Noted("breaker moved", {**moved, "failed": 8}), 1)
    journal.take(Noted("intent set", {"replica": "r1", "intent": "CORDONED", "actor": "ada"}), 2)
    journal.take(Noted("edge connected", {"edge": "e1", "edge_version": "1\x1b[2J"}), 3)
    journal.take(Noted("leads", {"term": 3}), 4)
    told = [(e.about, e.what, e.text) for e in journal.after(0)[0]]
    assert told == [
        ("r1", "breaker moved", "HEALTHY -> EJECTED: it fails"),
        ("r1", "intent set", "intent CORDONED, actor ada"),
        ("e1", "edge connected", ""),
        ("", "leads", "term 3"),
    ]
    assert journal.after(0)[0][0].details == (Detail("failed", "8"),)
    assert "\x1b" not in journal.after(0)[0][2].details[0].value


def test_a_reader_gets_what_is_new_about_what_it_asked_for() -> None:
    journal = Journal()
    for number in range(1, 6):
        journal.take(Noted("n", {"replica": f"r{number % 2}"}), number)
    assert [e.number for e in journal.after(2)[0]] == [3, 4, 5]
    assert [e.number for e in journal.after(0, "r1")[0]] == [1, 3, 5]
    assert [e.number for e in journal.latest("r1", 2)] == [3, 5]
    assert journal.after(5) == ([], 0)


def test_the_oldest_go_and_who_was_slow_is_told_how_many() -> None:
    journal = Journal()
    for number in range(EVENTS_MAX + 10):
        journal.take(Noted("n", {}), number)
    kept, lost = journal.after(4)
    assert (len(kept), kept[0].number, lost) == (EVENTS_MAX, 11, 6)
    assert journal.after(10)[1] == 0

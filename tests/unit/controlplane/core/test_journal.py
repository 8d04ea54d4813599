"""What happened, bounded, for people."""

from __future__ import annotations

import msgspec
import pytest

from controlplane.core.events import Noted, Transition
from controlplane.core.journal import EVENTS_MAX, PAGE, PAGES, STORED, Journal
from trimtab.model import EngineState, Serving
from trimtab.views import Detail, FleetEvent

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


def stored(journal: Journal, pages: dict[str, tuple[FleetEvent, ...]]) -> int:
    """Write what is new as the store would have it; how many writes that took."""
    news = journal.unsaved()
    kinds = tuple[FleetEvent, ...]
    pages.update({key: msgspec.json.decode(page, type=kinds) for key, page in news.items()})
    return len(news)


@pytest.mark.parametrize("count", [1, PAGE - 1, PAGE, PAGE + 1, STORED, 3 * STORED + 7])
@pytest.mark.parametrize("burst", [1, 10, STORED + 5])
def test_the_next_leader_goes_on_with_the_story(count: int, burst: int) -> None:
    journal, pages = Journal(), dict[str, tuple[FleetEvent, ...]]()
    for number in range(1, count + 1):
        journal.take(Noted("n", {"replica": "r1", "waited_s": number}), number)
        if number % burst == 0:
            assert stored(journal, pages) <= min(PAGES + 1, burst // PAGE + 2)
    stored(journal, pages)
    assert stored(journal, pages) == 0, "nothing happened since"
    assert len(pages) <= PAGES
    after = Journal()
    after.load(pages.values())
    assert after.newest == count
    kept, _ = after.after(0)
    assert kept == journal.after(0)[0][-len(kept) :]
    assert len(kept) >= min(count, STORED - PAGE)
    after.take(Noted("leads", {"term": 2}), count + 1)
    assert after.after(count)[0][0].number == count + 1
    stored(after, pages)
    third = Journal()
    third.load(pages.values())
    assert third.newest == count + 1
    third.load([])
    assert third.newest == count + 1


def test_a_journal_that_has_begun_takes_no_older_story() -> None:
    journal = Journal()
    journal.take(Noted("leads", {}), 1)
    journal.load([(FleetEvent(7, 1, "", "old"),)])
    assert [event.what for event in journal.after(0)[0]] == ["leads"]

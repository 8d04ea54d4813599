"""What happened to the fleet, for people: the newest events, in memory, and fewer in the store.

Rules: it holds what is logged, no more: no request, no prompt, no key; EVENTS_MAX in all, of which
the oldest go first, and whoever reads learns how many it missed. The store has the newest STORED
in PAGES keys, each written whole when something was added to it: so a burst costs a few writes, and
the next leader goes on with the story, less what happened in the second before.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from controlplane.core.bounds import clip
from controlplane.core.events import Noted, Transition
from controlplane.core.records import EVENTS
from trimtab.views import Detail, FleetEvent

EVENTS_MAX = 4_096
DETAILS_MAX = 24
PAGE, PAGES = 32, 64
STORED = PAGE * PAGES
_ABOUT = ("replica", "edge", "node", "pool")


class Journal:
    """The newest events, numbered from 1."""

    def __init__(self) -> None:
        self._events: deque[FleetEvent] = deque(maxlen=EVENTS_MAX)
        self.newest = 0
        """Number of the newest event."""
        self._saved = 0

    def take(self, effect: Transition | Noted, at_ms: int) -> None:
        """Note what the registry said."""
        self.newest += 1
        if isinstance(effect, Transition):
            event = _moved(effect, self.newest, at_ms)
        else:
            event = _noted(effect, self.newest, at_ms)
        self._events.append(event)

    def load(self, pages: Iterable[Sequence[FleetEvent]]) -> None:
        """Begin with what the leader before has stored; one that has begun goes on instead."""
        events = sorted((e for page in pages for e in page), key=lambda event: event.number)
        if self.newest or not events:
            return
        self.newest = self._saved = events[-1].number
        self._events.extend(e for e in events if e.number > self.newest - STORED)

    def unsaved(self) -> dict[str, bytes]:
        """The keys of the store to which something was added since the last call."""
        pages: dict[int, list[FleetEvent]] = {}
        first = max(self._saved + 1, self.newest - STORED) // PAGE * PAGE
        if self._saved < self.newest:
            for event in itertools.islice(self._events, self._before(first), None):
                pages.setdefault(event.number // PAGE, []).append(event)
        self._saved = self.newest
        return {f"{EVENTS}{n % PAGES:02d}": msgspec.json.encode(page) for n, page in pages.items()}

    def after(self, number: int, about: str = "") -> tuple[list[FleetEvent], int]:
        """What is kept of the events after one, oldest first, and how many are not any more."""
        if number >= self.newest:
            return [], 0
        found = itertools.islice(self._events, self._before(number + 1), None)
        lost = max(0, self.newest - len(self._events) - number)
        return [e for e in found if about in {"", e.about}], lost

    def _before(self, number: int) -> int:
        """How many of those that are kept come before this one."""
        return max(0, number - (self.newest - len(self._events) + 1))

    def latest(self, about: str, limit: int) -> tuple[FleetEvent, ...]:
        """The newest about something, oldest first."""
        found = (event for event in reversed(self._events) if event.about == about)
        return tuple(itertools.islice(found, limit))[::-1]


def _moved(effect: Transition, number: int, at_ms: int) -> FleetEvent:
    serving, state = effect.serving, effect.state
    changes = [f"{a.name} -> {b.name}" for a, b in (serving, state) if a is not b]
    what = "serving" if serving[0] is not serving[1] else "engine"
    text = ", engine ".join(changes) if what == "serving" else changes[0]
    details = _details(effect.evidence)
    return FleetEvent(number, at_ms, effect.replica, what, f"{text}: {effect.reason}", details)


def _noted(effect: Noted, number: int, at_ms: int) -> FleetEvent:
    fields = effect.fields
    about = next((str(fields[key]) for key in _ABOUT if key in fields), "")
    if "from" in fields:
        text = f"{fields['from']} -> {fields['to']}: {fields['cause']}"
    else:
        told = ("term", "intent", "reason", "actor", "alarm")
        text = ", ".join(f"{key} {fields[key]}" for key in told if fields.get(key))
    skipped = {"from", "to", "cause", "term", "intent", "reason", "actor", "alarm", *_ABOUT}
    rest = {key: value for key, value in fields.items() if key not in skipped}
    return FleetEvent(number, at_ms, about, effect.what, clip(text), _details(rest))


def _details(fields: Mapping[str, object]) -> tuple[Detail, ...]:
    known: Iterable[tuple[str, object]] = ((k, v) for k, v in fields.items() if v is not None)
    return tuple(Detail(k, clip(str(v))) for k, v in itertools.islice(known, DETAILS_MAX))


def told(transition: Transition) -> dict[str, object]:
    """What the log says of a transition."""
    states, servings = transition.state, transition.serving
    return {
        "replica": transition.replica,
        "state": states[1].name,
        "state_before": states[0].name,
        "serving": servings[1].name,
        "serving_before": servings[0].name,
        "reason": transition.reason,
        "evidence": dict(transition.evidence),
    }

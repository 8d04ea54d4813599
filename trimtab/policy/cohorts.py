"""Attempts by the second in which they started, and what became of them.

Rule: a failure counts against the attempts that started beside it. Fast failures end before the
slow successes of the same moment, so a share of failures among what ended lately reads near 100 %
at every onset. What has not ended is not held against anybody. `Tally` is an edge's side, `Window`
the leader's; an edge tells ages, so the two need no common clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from trimtab.model import Cohort, Outcome, OutcomeCount

KEPT_S = 60
"""An edge tells what became of attempts that started up to this long ago."""
WINDOW_S = 30
"""The leader judges attempts that started up to this long ago."""
LATELY_MIN = 30
"""The newest so many tell a total failure sooner than the whole window: by chance a replica that
fails .6 of its requests fails .9 of 30 once in a day or two."""
FAILURES = frozenset({Outcome.SOFT, Outcome.HARD})
"""Only these speak against a replica: not overload, not the caller, not one edge's own path."""


@dataclass(slots=True)
class _News:
    dispatched: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)


class Tally:
    """One edge's attempts on one replica: what is new since the last report."""

    def __init__(self) -> None:
        self._news: dict[int, _News] = {}

    def started(self, now_s: float) -> None:
        """An attempt starts."""
        self._of(now_s).dispatched += 1

    def ended(self, outcome: Outcome, started_s: float, now_s: float) -> None:
        """An attempt that started then ended so."""
        if now_s - started_s < KEPT_S:
            self._of(started_s).outcomes[outcome] += 1

    def report(self, now_s: float) -> tuple[Cohort, ...]:
        """What is new, and forget it."""
        cohorts = tuple(
            Cohort(
                age_ms=max(0, round(1000 * (now_s - second))),
                dispatched=news.dispatched,
                outcomes=tuple(OutcomeCount(o, n) for o, n in sorted(news.outcomes.items())),
            )
            for second, news in sorted(self._news.items())
            if now_s - second < KEPT_S
        )
        self._news.clear()
        return cohorts

    def _of(self, started_s: float) -> _News:
        second = int(started_s)
        news = self._news.get(second)
        if news is None:
            news = self._news[second] = _News()
        return news


@dataclass(frozen=True, slots=True)
class Counts:
    """Attempts and how many of them failed: of the whole window, and of its newest."""

    dispatched: int = 0
    failed: int = 0
    lately_dispatched: int = 0
    """LATELY_MIN, or some more as they are told by the second; fewer only if there are no more."""
    lately_failed: int = 0


NOTHING = Counts()


class Window:
    """One replica's attempts of all edges, by the second in which they started."""

    def __init__(self) -> None:
        self._counts: dict[int, tuple[int, int]] = {}

    def add(self, cohorts: Iterable[Cohort], now_s: float) -> None:
        """An edge's report."""
        for cohort in cohorts:
            failed = sum(o.count for o in cohort.outcomes if o.outcome in FAILURES)
            if cohort.age_ms < 1000 * WINDOW_S and (cohort.dispatched or failed):
                second = int(now_s - cohort.age_ms / 1000)
                before = self._counts.get(second, (0, 0))
                self._counts[second] = (before[0] + cohort.dispatched, before[1] + failed)
        if len(self._counts) > WINDOW_S + 1:
            for second in [s for s in self._counts if s <= now_s - WINDOW_S]:
                del self._counts[second]

    def count(self, from_s: float, now_s: float) -> Counts:
        """Attempts that started since then, at most WINDOW_S ago."""
        if not self._counts:
            return NOTHING
        oldest = max(int(from_s), now_s - WINDOW_S)
        dispatched = failed = 0
        lately: tuple[int, int] | None = None
        for second in sorted(self._counts, reverse=True):
            if second < oldest:
                break
            dispatched += self._counts[second][0]
            failed += self._counts[second][1]
            if lately is None and dispatched >= LATELY_MIN:
                lately = dispatched, failed
        return Counts(dispatched, failed, *(lately or (dispatched, failed)))

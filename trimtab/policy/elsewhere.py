"""What an edge knows of its pool beyond itself: its pace, and who waits at the other edges.

Rules: the leader's word is half a second old and holds for FRESH_S; then, or where the leader does
not know, the edge goes by its own share: what its own streams gave while its own queue stood.
Between two words the others are taken to admit as this edge does, in the proportion in which both
were served lately: else all edges would see the same small gap and fill it all at once. What
tenants were served elsewhere counts for whose turn it is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from trimtab.model import Elsewhere, PoolPace, Urgency
from trimtab.policy.fairness import Shares
from trimtab.policy.urgency import known
from trimtab.policy.work import AnswerLength, Pace

FRESH_S = 5.0
KEPT = 0.9  # of what was served, from one word to the next: a memory of about 5 s
OTHERS_MAX = 31.0  # more edges than that are not seen to admit at once


@dataclass(slots=True)
class Served:
    """Work charged to tenants lately: here, and elsewhere."""

    here: float = 0.0
    elsewhere: float = 0.0

    @property
    def others(self) -> float:
        """How much the other edges do for each unit of this one."""
        if self.here <= 0.0:
            return OTHERS_MAX if self.elsewhere > 0.0 else 0.0
        return min(OTHERS_MAX, self.elsewhere / self.here)


@dataclass(slots=True)
class Knowledge:
    """Of one pool."""

    _word: PoolPace = field(default_factory=lambda: PoolPace(""))
    _term: int = 0
    _heard_s: float = float("-inf")
    _own_pace: Pace = field(default_factory=Pace)
    _own_length: AnswerLength = field(default_factory=AnswerLength)
    _served: Served = field(default_factory=Served)
    _charged: float = 0.0
    _charged_elsewhere: dict[tuple[Urgency, str], float] = field(default_factory=dict)
    _admitted: Counter[tuple[Urgency, str]] = field(default_factory=Counter)

    def hear(self, word: PoolPace, term: int, shares: Shares, now_s: float) -> None:
        """The word of the leader of a term; a new one counts anew what was charged."""
        before = self._charged_elsewhere if term == self._term else {}
        charged = {_key(other): other.charged_work for other in word.elsewhere}
        theirs = 0.0
        for key in charged.keys() & before.keys():
            grown = charged[key] - before[key]
            shares.charge(key[1], grown)
            theirs += grown
        self._served.here = KEPT * self._served.here + self._charged
        self._served.elsewhere = KEPT * self._served.elsewhere + theirs
        self._charged, self._charged_elsewhere = 0.0, charged
        self._admitted.clear()
        self._word, self._term, self._heard_s = word, term, now_s

    def admitted(self, tenant: str, urgency: Urgency, work: float) -> None:
        """A request was let in here."""
        self._admitted[known(urgency), tenant] += work  # type: ignore[assignment]

    def charged(self, work: float) -> None:
        """A request was served here."""
        self._charged += work

    def streamed(self, tokens: int, elapsed_s: float, *, standing: bool) -> None:
        """So much came from the replicas since the last call; `standing`: requests wait."""
        self._own_length.add(tokens, 0.0)
        self._own_pace.observe(tokens, elapsed_s, full=standing)

    def ended(self) -> None:
        """An answer ended by itself."""
        self._own_length.add(0.0, 1.0)

    def work_per_s(self, now_s: float) -> float | None:
        """The work that all do in a second when they are full; None while nobody knows."""
        if self._fresh(now_s) and self._word.work_per_s is not None:
            return self._word.work_per_s
        return self._own_pace.work_per_s

    def answer_tokens(self, max_tokens: float | None) -> float:
        """How long an answer to expect of a request that allows so much."""
        told = self._word.answer_tokens
        if told is None:
            return self._own_length.expected(max_tokens)
        return told if max_tokens is None else min(told, max_tokens)

    def waiting(self, now_s: float) -> Iterator[tuple[Urgency, str, float]]:
        """Who waits elsewhere, with how much work."""
        if self._fresh(now_s) and self._word.work_per_s is not None:
            others = self._served.others
            for other in self._word.elsewhere:
                key = _key(other)
                yield *key, other.queued_work + others * self._admitted[key]

    def _fresh(self, now_s: float) -> bool:
        return now_s - self._heard_s <= FRESH_S


def _key(other: Elsewhere) -> tuple[Urgency, str]:
    return known(other.urgency), other.tenant

"""What one model can take, and what binds it: told from what the leader sees of its pool.

Rules: numbers are of now; the first thing that takes capacity away, or that is used up, is the
headline; replicas that are not in full use are named with their own first line, at most SHOWN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from controlplane.core.looks import span
from trimtab.views import Account, Concern, Explanation, Finding, PoolView

SHOWN = 20


@dataclass(frozen=True, slots=True)
class ModelCase:
    """Everything there is to look at."""

    name: str
    pool: PoolView
    odd: Sequence[Explanation]
    """Of those of its pool that are not in full use, at most SHOWN, the closed ones first."""
    queued_work: float
    work_per_s: float | None
    """None while it is unknown."""

    @property
    def held(self) -> list[Explanation]:
        """The replicas that get no new requests."""
        return [found for found in self.odd if not found.in_rotation]

    @property
    def wait_s(self) -> float | None:
        """How long a new request would wait; None while unknown."""
        if not self.pool.queued:
            return 0.0
        return self.queued_work / self.work_per_s if self.work_per_s else None


Look = Callable[[ModelCase], tuple[Concern, str]]


def tell(case: ModelCase) -> Account:
    """Look at everything."""
    findings = [Finding(*_named(what, look(case))) for what, look in LOOKS.items()]
    findings += _replicas(case)
    ordered = tuple(sorted(findings, key=lambda finding: finding.concern))
    return Account(
        subject="model",
        name=case.name,
        headline=_headline(case, ordered[0]),
        concern=ordered[0].concern,
        findings=ordered,
        advice=tuple(_advice(case)),
    )


def _named(what: str, found: tuple[Concern, str]) -> tuple[Concern, str, str]:
    return found[0], what, found[1]


def _capacity(case: ModelCase) -> tuple[Concern, str]:
    pool = case.pool
    slots = f"{pool.open_slots} of {pool.healthy_slots} healthy slots open"
    text = f"{slots} on {pool.open} of {pool.replicas} replicas"
    if not pool.open:
        return Concern.BLOCKS, f"{text}: {_first_words(case)}"
    if case.held:
        return Concern.LIMITS, f"{text}: {_first_words(case)}"
    withheld = pool.open_slots < pool.healthy_slots
    return (Concern.LIMITS if withheld else Concern.FINE), text


def _first_words(case: ModelCase) -> str:
    """Why each replica that gets nothing gets nothing."""
    held = [found.headline.replace(" gets no new requests:", ":", 1) for found in case.held[:3]]
    more = case.pool.replicas - case.pool.open - len(held)
    rest = f"; {more} more" if more > 0 else ""
    return "; ".join(held) + rest if held else "it has no replica"


def _room(case: ModelCase) -> tuple[Concern, str]:
    pool, wait_s = case.pool, case.wait_s
    used = f"{pool.inflight} of {pool.open_slots} slots used"
    if not pool.queued:
        return Concern.FINE, f"{used}, nobody waits"
    wait = "how long is not known yet" if wait_s is None else f"a new one would wait {span(wait_s)}"
    full = pool.inflight >= pool.open_slots
    text = f"{'full: ' if full else ''}{used}, {pool.queued} requests wait, {wait}"
    return (Concern.LIMITS if full else Concern.FINE), text


def _pace(case: ModelCase) -> tuple[Concern, str]:
    if case.work_per_s is None:
        return Concern.FINE, "not measured yet: no engine was seen full"
    return Concern.FINE, f"its open replicas decode {case.work_per_s:.0f} tokens/s when full"


def _refusals(case: ModelCase) -> tuple[Concern, str]:
    pool = case.pool
    text = f"{pool.shed_1m} of {pool.requests_1m} requests refused in the last minute"
    return (Concern.LIMITS if pool.shed_1m else Concern.FINE), text


def _alarm(case: ModelCase) -> tuple[Concern, str]:
    alarm = case.pool.alarm
    return (Concern.LIMITS, alarm) if alarm else (Concern.FINE, "failures have no common cause")


LOOKS: dict[str, Look] = {
    "capacity": _capacity,
    "alarm": _alarm,
    "room": _room,
    "refusals": _refusals,
    "pace": _pace,
}
"""In order of what to say first, among those that matter as much."""


def _replicas(case: ModelCase) -> Iterator[Finding]:
    for found in case.odd:
        yield Finding(Concern.LIMITS, "replica", found.headline)


def _headline(case: ModelCase, worst: Finding) -> str:
    if worst.concern is Concern.BLOCKS:
        return f"{case.name} is not served: {worst.text}"
    if worst.concern is Concern.LIMITS:
        return f"{case.name} is served, but {worst.what}: {worst.text}"
    return f"{case.name} is served, and nothing binds: {_room(case)[1]}"


def _advice(case: ModelCase) -> Iterator[str]:
    for found in case.held[:3]:
        yield from found.advice[:1]
        yield f"ctl explain replica {found.replica}"
    if _room(case)[0] is Concern.LIMITS and not case.held:
        yield "nothing is wrong: the rest waits at the edges; more replicas take more"

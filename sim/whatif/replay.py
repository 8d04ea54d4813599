"""Recorded arrivals, once more, in virtual time: what each caller would have met.

Rules: a caller comes when it came, and asks for what it asked for. How long an answer would have
been is known where there was one; where not (refused, failed), it is drawn from the same tenant's
answers. Who left before his answer began leaves again after as long; who left in its middle had as
many tokens as he wanted. Submissions that were retries are not replayed: callers of the simulation
come back themselves, when they are told to, as often as those of the recording did. Equal seeds
draw equal lengths and copies, whatever the fleet is like, so two runs meet the same callers.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from sim.whatif.fleet import Fleet, Setting, slots
from sim.world.requests import Call, Fate, Job, Reply
from trimtab.model import Urgency
from trimtab.recording import Arrival, End, Recording
from trimtab.whatif import Figures

BOOT_S = 3.0  # until the fleet stands
DRAIN_S = 60.0  # for answers to end, while those who came later still come
PATIENCE_S = 600.0
LOOK_PERIOD_S = 5.0
RETRIES = 2  # an SDK's
RETRY_AFTER_MAX_S = 120.0
COPY_SPREAD_S = 30.0  # a copy comes this much before or after what it is a copy of
OWN_ANSWERS_MIN = 20  # of a tenant, to draw from them alone
REFUSALS = frozenset({429, 503})


class Wish(NamedTuple):
    """What a caller wants, and when."""

    at_s: float
    tenant: int
    prompt_tokens: int
    output_tokens: int
    is_stream: bool
    leaves_after_s: float | None


def wishes(recording: Recording, load: float, seed: int) -> list[Wish]:
    """Who comes, in order, when `load` times as many come."""
    dice = random.Random(f"{seed}/wishes")
    draw = _Lengths(recording.arrivals)
    first_s = -recording.head.lead_s
    found = []
    for arrival in recording.arrivals:
        if arrival.retry or arrival.end is End.REJECTED:
            continue
        copies = int(load) + (dice.random() < load % 1.0)
        for copy in range(copies):
            at_s = arrival.at_s
            if copy:
                at_s = max(first_s, at_s + COPY_SPREAD_S * (2.0 * dice.random() - 1.0))
            found.append(_wish(arrival, at_s, draw.tokens(arrival, dice)))
    return sorted(found)


def return_ratio(arrivals: Sequence[Arrival]) -> float:
    """Of submissions that were refused or failed, those that were made again."""
    again = sum(arrival.retry > 0 for arrival in arrivals)
    sent_away = sum(arrival.end in {End.REFUSED, End.FAILED} for arrival in arrivals)
    return min(1.0, again / sent_away) if sent_away else 0.0


class Replay:
    """One run; the caller of all calls."""

    def __init__(self, recording: Recording, setting: Setting, load: float, seed: int) -> None:
        self._fleet = Fleet(setting, seed)
        self._loop = self._fleet.loop
        self._head = recording.head
        self._slots = slots(setting.replicas)
        self._longest = min(r.spec.max_model_len for r in self._fleet.replicas.values())
        self._zero_s = BOOT_S + recording.head.lead_s
        self._returns = return_ratio(recording.arrivals)
        self._dice = random.Random(f"{seed}/callers")
        self._coming = iter(wishes(recording, load, seed))
        self._jobs: list[tuple[Wish, Job]] = []
        self._submitted_s: dict[int, float] = {}
        self._running: list[int] = []

    def run(self) -> Figures:
        """From the lead's beginning to the end, and a little longer."""
        self._next()
        self._loop.at(self._zero_s, self._look)
        self._loop.run(self._zero_s + self._head.span_s + DRAIN_S)
        return self._figures()

    # As a caller

    def began(self, call: Call) -> None:
        """The first token came."""
        call.job.first_s = self._loop.now_s

    def ended(self, call: Call) -> None:
        """The answer is whole."""
        self._settle(call.job, Fate.DONE)

    def broke(self, call: Call) -> None:
        """The stream ended in an error."""
        self._settle(call.job, Fate.BROKEN)

    def refused(self, call: Call, reply: Reply) -> None:
        """An error status before any token."""
        job, wait_s = call.job, reply.retry_after_s or 0.0
        again = job.submissions <= RETRIES and wait_s <= RETRY_AFTER_MAX_S
        if again and self._dice.random() < self._returns:
            self._loop.after(wait_s, self._come_back, job)
        else:
            self._settle(job, Fate.REFUSED if reply.status in REFUSALS else Fate.FAILED)

    # Inside

    def _next(self) -> None:
        wish = next(self._coming, None)
        if wish is not None:
            self._loop.at(self._zero_s + wish.at_s, self._arrive, wish)

    def _arrive(self, wish: Wish) -> None:
        tenant = self._head.tenants[wish.tenant]
        job = Job(len(self._jobs), 0, tenant.name, self._loop.now_s)
        job.urgency = _urgency(tenant.urgency)
        job.prompt_tokens = min(max(1, wish.prompt_tokens), self._longest - 1)
        job.output_tokens = min(max(1, wish.output_tokens), self._longest - job.prompt_tokens)
        self._jobs.append((wish, job))
        call = self._submit(job)
        if wish.leaves_after_s is not None:
            self._loop.after(wish.leaves_after_s, self._leave, call)
        self._next()

    def _submit(self, job: Job) -> Call:
        call = Call(job, self, self._loop.now_s, PATIENCE_S)
        self._submitted_s[job.number] = self._loop.now_s
        self._fleet.edge.submit(call)
        return call

    def _come_back(self, job: Job) -> None:
        self._submit(job)

    def _leave(self, call: Call) -> None:
        if call.live and call.job.fate is Fate.PENDING and call.cancel is not None:
            call.live = False
            call.cancel()
            self._settle(call.job, Fate.LEFT)

    def _settle(self, job: Job, fate: Fate) -> None:
        job.fate = fate
        job.ended_s = self._loop.now_s

    def _look(self) -> None:
        self._running.append(sum(r.engine.in_flight for r in self._fleet.replicas.values()))
        if self._loop.now_s + LOOK_PERIOD_S < self._zero_s + self._head.span_s:
            self._loop.after(LOOK_PERIOD_S, self._look)

    def _figures(self) -> Figures:
        counted = [(w, job) for w, job in self._jobs if 0.0 <= w.at_s < self._head.span_s]
        fates = Counter(job.fate for _, job in counted)
        firsts, wholes, tokens = [], [], 0
        for wish, job in counted:
            since_s = self._submitted_s[job.number]
            if job.fate in {Fate.DONE, Fate.PENDING} and job.first_s is not None and wish.is_stream:
                firsts.append(job.first_s - since_s)
            if job.fate is Fate.DONE and job.ended_s is not None:
                wholes.append(job.ended_s - since_s)
                tokens += job.output_tokens
        return Figures(
            requests=len(counted),
            served=fates[Fate.DONE] + fates[Fate.PENDING],
            refused=fates[Fate.REFUSED],
            left=fates[Fate.LEFT],
            failed=fates[Fate.FAILED] + fates[Fate.BROKEN],
            **times(firsts, wholes),
            tokens_per_s=tokens / self._head.span_s,
            busy_ratio=sum(self._running) / max(1, len(self._running)) / self._slots,
        )


def measured(recording: Recording) -> Figures:
    """How callers really fared."""
    head = recording.head
    within = [a for a in recording.arrivals if 0.0 <= a.at_s < head.span_s]
    counted = [a for a in within if a.end is not End.REJECTED]
    ends = Counter(arrival.end for arrival in counted)
    again = sum(arrival.retry > 0 for arrival in counted)
    sent_away = ends[End.REFUSED] + ends[End.FAILED]
    kept = max(0.0, 1.0 - again / sent_away) if sent_away else 1.0  # that did not come back
    served = [arrival for arrival in counted if arrival.end is End.SERVED]
    busy_s = sum(max(0.0, arrival.lasted_s - arrival.wait_s) for arrival in counted)
    return Figures(
        requests=len(counted) - again,
        served=len(served),
        refused=round(ends[End.REFUSED] * kept),
        left=ends[End.LEFT],
        failed=round(ends[End.FAILED] * kept),
        **times([a.first_s for a in served if a.first_s is not None], [a.lasted_s for a in served]),
        tokens_per_s=sum(arrival.output_tokens for arrival in served) / head.span_s,
        busy_ratio=busy_s / head.span_s / slots(head.replicas),
    )


def times(firsts: list[float], wholes: list[float]) -> dict[str, float | None]:
    """The quantiles of figures."""
    firsts.sort()
    wholes.sort()
    return {
        "first_p50_s": _quantile(firsts, 0.50),
        "first_p95_s": _quantile(firsts, 0.95),
        "first_p99_s": _quantile(firsts, 0.99),
        "whole_p50_s": _quantile(wholes, 0.50),
        "whole_p95_s": _quantile(wholes, 0.95),
    }


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


class _Lengths:
    """How long answers are."""

    def __init__(self, arrivals: Sequence[Arrival]) -> None:
        self._all: list[int] = []
        self._own: defaultdict[int, list[int]] = defaultdict(list)
        for arrival in arrivals:
            if arrival.end is End.SERVED and arrival.output_tokens:
                self._own[arrival.tenant].append(arrival.output_tokens)
                self._all.append(arrival.output_tokens)

    def tokens(self, arrival: Arrival, dice: random.Random) -> int:
        """Of the answer that this caller wanted."""
        is_known = arrival.end is End.SERVED or (arrival.end is End.LEFT and arrival.output_tokens)
        if is_known:
            return arrival.output_tokens
        own = self._own[arrival.tenant]
        of = (own if len(own) >= OWN_ANSWERS_MIN else self._all) or [1]
        return of[int(dice.random() * len(of))]


def _wish(arrival: Arrival, at_s: float, output_tokens: int) -> Wish:
    leaves = arrival.end is End.LEFT and not arrival.output_tokens
    return Wish(
        at_s=at_s,
        tenant=arrival.tenant,
        prompt_tokens=arrival.prompt_tokens,
        output_tokens=output_tokens,
        is_stream=arrival.is_stream,
        leaves_after_s=arrival.lasted_s if leaves else None,
    )


def _urgency(number: int) -> Urgency:
    return Urgency(number) if number in _URGENCIES else Urgency.DEFAULT


_URGENCIES = frozenset(urgency.value for urgency in Urgency)

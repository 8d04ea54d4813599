"""The breaker: whether one replica is in use, for all edges at once.

Rule 1: overload is not failure. The evidence has no place for refusals for want of room, for
callers that leave, for one edge's own path, or for what nobody knows; so they can move nothing.
Rule 2: what the agent says is believed. What only edges say ejects nobody who is `kept`: the last
one that serves, or anybody while most of the pool fails at once.
Rule 3: nothing is taken away on a guess: an engine that serves when it is first seen is in use.
Rule 4: a start is not a failure: a first restart is probed at once. No engine that was seen
starting gets clients before it made a token: probes pay for compilation, not people.
Rule 5: back in use is a cap on concurrency that grows on evidence; a timer alone grows nothing.
Rule 6: an operator may hold a replica out, or in, or pause what counts decide (`Hold`). The agent's
word and a closed port eject all the same. Whom he let go comes back like any other, without a wait.
Rule 7: caution follows the record. Each ejection doubles the next wait, up to five minutes, halves
the first cap and asks for one probe more; time in use forgives.

TABLE is the machine: in each state the first cause that holds moves it. The diagram in
docs/steering.md is drawn from it. Numbers: Finagle's back-off (5 to 300 s); a cap instead of a
weight, because under overload a weight is void: when the others are full, all goes to the newcomer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from trimtab.model import BreakerState
from trimtab.policy.cohorts import LATELY_MIN
from trimtab.policy.dice import Dice
from trimtab.policy.progress import HANG_EJECT_S

FAILING_MIN, FAILING_RATIO = 8, 0.9
"""Fails nearly everything. Counts over the whole window: of the newest 8, a replica that fails .6
of its requests fails 8 by chance every few minutes."""
IMPAIRED_MIN, IMPAIRED_RATIO = 20, 0.05
"""Fails so much that clients feel it through the retries."""
RECOVERED_RATIO = IMPAIRED_RATIO / 2
"""Lower than what it takes to be impaired, so that a share at the edge does not flap."""
REFUSING_EDGES = 2
"""One edge alone may have a broken path; two do not, and neither does one with a silent agent."""
BACKOFF_S, BACKOFF_MAX_S, BACKOFF_JITTER = 5.0, 300.0, 0.2
EJECTIONS_MAX = 7  # the next doubling would pass BACKOFF_MAX_S
FORGIVEN_S = 60.0
"""Healthy for this times the ejections counted: one of them is forgiven."""
PROBES_MAX, PROBE_GAP_S = 3, 1.0
"""In a row: as many as it was ejected."""
RAMP_FIRST_RATIO, RAMP_LEAST_RATIO, RAMP_LEAST_SLOTS = 0.25, 0.05, 4
"""A quarter after one ejection, half of that after two, never less than the least. Why not 5 % at
once: docs/decisions/0005."""
RAMP_FACTOR, RAMP_STEP_S = 1.5, 2.0
"""From a quarter to everything in 4 steps, from 5 % in 8: 8 to 16 s."""
UNPROBED_S = 3.0
"""So long without a probe that tells anything: time for three."""
RAMP_WAITING_MAX = 4
"""The engine's queue that the limits aim at; more means that it is behind."""
RAMP_ITL_RATIO_MAX = 1.5

State = BreakerState
SERVING = frozenset({State.RAMPING, State.HEALTHY, State.DEGRADED})


class Word(Enum):
    """What the agent says of the engine, as far as it matters here."""

    NONE = auto()  # nothing yet, or nothing that it is sure of
    SERVES = auto()
    STUCK = auto()  # nothing moves, but not yet for long enough to be sure
    STOPPED = auto()  # it is starting
    LEAVING = auto()  # it drains or sleeps, on purpose
    LOST = auto()  # no useful work: dead, hung, without its GPU


class Hold(Enum):
    """What an operator has put in the place of counts."""

    NONE = auto()
    OPEN = auto()  # it stays out
    CLOSED = auto()  # edges' counts do not eject it, and what they ejected comes back
    PAUSED = auto()  # edges' counts eject nobody


class Cause(Enum):
    """Why a breaker moves, in words for people."""

    FOUND = "it served when first seen"
    STARTED = "its engine has started"
    PROBED = "its probes were answered"
    UNPROBED = "no probe can tell: its first requests are the probes"
    FULL = "it holds its full limit"
    RECOVERED = "its failures have ended"
    HELD = "an operator holds it out"
    LOST = "its agent says that it does no useful work"
    STOPPED = "its engine stopped or started anew"
    LEAVING = "its engine drains or sleeps"
    RETURNED = "its engine is back"
    PROBE_FAILED = "a probe failed"
    REFUSED = "edges find nothing listening on its port"
    UNANSWERED = "it answers no request, and its engine shows no work"
    FAILING = "it fails nearly every request"
    STUMBLED = "it failed requests while ramping up"
    SPARED = "it fails requests, and the others can carry its load"
    IMPAIRED = "it fails requests, but is not spared"
    PARDONED = "it is needed, or a common cause is likely"
    RESTARTED = "a new start of its engine serves"
    WAITED = "its wait is over"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a replica at one moment."""

    word: Word = Word.NONE
    epoch: int = 0
    """The engine's start; 0 is unknown."""
    full_slots: int = 0
    """What it may hold when it does not ramp."""
    dispatched: int = 0
    """Attempts that started since `counts_from_s`, of the last 30 s."""
    failed: int = 0
    """Those of them that failed by the replica's fault."""
    lately_dispatched: int = 0
    """The newest of them; see policy/cohorts."""
    lately_failed: int = 0
    refusing_edges: int = 0
    """Edges that just found its port closed."""
    agent_silent: bool = False
    unanswered_s: float = 0.0
    """So long requests have waited on it for their first byte while its engine ran nothing."""
    patience_s: float = HANG_EJECT_S
    """From so long on that is a hang; see policy/progress."""
    first_tokens: int = 0
    """Requests that got a first token since the last step."""
    waiting: int | None = None
    """Requests waiting in the engine."""
    itl_ratio: float | None = None
    """Its time between tokens over the pool's median."""
    probe: bool | None = None
    """How a probe went that ended since the last step, if it told anything."""
    probes_tell: bool = True
    """False when the last one told nothing: the engine was full, or did not understand it."""
    spared: bool = False
    """The pool can do without it; see policy/ejection."""
    kept: bool = False
    """Edges' word alone may not eject it."""
    pardoned: bool = False
    """What was ejected on edges' word alone is to come back."""
    hold: Hold = Hold.NONE
    """What an operator says."""

    @property
    def counts(self) -> bool:
        """Whether the failures that edges count may eject it."""
        return not self.kept and self.hold not in {Hold.CLOSED, Hold.PAUSED}


@dataclass(frozen=True, slots=True)
class Breaker:
    """One replica's breaker."""

    state: State = State.JOINING
    cause: Cause | None = None
    """Why it is in this state; None before the first move."""
    since_s: float = 0.0
    ejections: int = 0
    """Not yet forgiven."""
    until_s: float = 0.0
    """EJECTED: when it may be probed."""
    cap_slots: float = 0.0
    """RAMPING: what it may hold."""
    epoch: int = 0
    """The start of the engine that this state is about; 0 is unknown."""
    counts_from_s: float = 0.0
    """Attempts that started earlier are another life's."""
    due_s: float = 0.0
    """When the state's own next step is due: a probe, more room, a pardon."""
    probes: int = 0
    """PROBING: good ones in a row."""
    first_token: bool = False
    """RAMPING: one came since the cap last grew."""
    cold: bool = False
    """JOINING: it was seen when it did not serve."""


TABLE: Mapping[State, tuple[tuple[Cause, State], ...]] = {
    State.JOINING: (
        (Cause.HELD, State.EJECTED),
        (Cause.FOUND, State.HEALTHY),
        (Cause.STARTED, State.PROBING),
    ),
    State.PROBING: (
        (Cause.HELD, State.EJECTED),
        (Cause.LOST, State.EJECTED),
        (Cause.STOPPED, State.EJECTED),
        (Cause.LEAVING, State.DRAINING),
        (Cause.PROBE_FAILED, State.EJECTED),
        (Cause.PROBED, State.RAMPING),
        (Cause.UNPROBED, State.RAMPING),
    ),
    State.RAMPING: (
        (Cause.HELD, State.EJECTED),
        (Cause.LOST, State.EJECTED),
        (Cause.STOPPED, State.EJECTED),
        (Cause.LEAVING, State.DRAINING),
        (Cause.REFUSED, State.EJECTED),
        (Cause.UNANSWERED, State.EJECTED),
        (Cause.STUMBLED, State.EJECTED),
        (Cause.PROBE_FAILED, State.EJECTED),
        (Cause.FULL, State.HEALTHY),
    ),
    State.HEALTHY: (
        (Cause.HELD, State.EJECTED),
        (Cause.LOST, State.EJECTED),
        (Cause.STOPPED, State.EJECTED),
        (Cause.LEAVING, State.DRAINING),
        (Cause.REFUSED, State.EJECTED),
        (Cause.UNANSWERED, State.EJECTED),
        (Cause.FAILING, State.EJECTED),
        (Cause.SPARED, State.EJECTED),
        (Cause.IMPAIRED, State.DEGRADED),
    ),
    State.DEGRADED: (
        (Cause.HELD, State.EJECTED),
        (Cause.LOST, State.EJECTED),
        (Cause.STOPPED, State.EJECTED),
        (Cause.LEAVING, State.DRAINING),
        (Cause.REFUSED, State.EJECTED),
        (Cause.UNANSWERED, State.EJECTED),
        (Cause.FAILING, State.EJECTED),
        (Cause.SPARED, State.EJECTED),
        (Cause.RECOVERED, State.HEALTHY),
    ),
    State.EJECTED: (
        (Cause.PARDONED, State.DEGRADED),
        (Cause.RESTARTED, State.PROBING),
        (Cause.WAITED, State.PROBING),
    ),
    State.DRAINING: ((Cause.RETURNED, State.JOINING),),
}
PARDONABLE = frozenset({Cause.FAILING, Cause.SPARED})
"""Ejected on what edges counted alone; the agent said nothing against it."""


def step(breaker: Breaker, seen: Evidence, now_s: float, dice: Dice) -> Breaker:
    """Take the evidence of this moment in; call it about twice a second and on news."""
    breaker = _ABSORB.get(breaker.state, _same)(breaker, seen, now_s)
    for cause, target in TABLE[breaker.state]:
        if _HOLDS[cause](breaker, seen, now_s):
            return _enter(breaker, target, cause, seen, now_s, dice)
    return breaker


def wants_probe(breaker: Breaker, word: Word, now_s: float) -> bool:
    """Whether its agent should ask it for a token now, unless one is being asked for.

    A replica that ramps without clients is probed too, so that it is ready when they come.
    """
    if word is not Word.SERVES or now_s < breaker.due_s:
        return False
    ramps_idle = breaker.state is State.RAMPING and not breaker.first_token
    return breaker.state is State.PROBING or ramps_idle


def reset(breaker: Breaker, now_s: float) -> Breaker:
    """Hold nothing against it: what is out is probed as soon as it serves, what is in stays."""
    until_s = min(breaker.until_s, now_s)
    return replace(breaker, ejections=0, until_s=until_s, counts_from_s=now_s)


def probes_needed(breaker: Breaker) -> int:
    """How many must be answered in a row before it ramps up."""
    return min(PROBES_MAX, max(1, breaker.ejections))


def slots(breaker: Breaker, full_slots: int) -> int:
    """What it may hold now."""
    if breaker.state is State.RAMPING:
        return min(int(breaker.cap_slots), full_slots)
    return full_slots if breaker.state in SERVING else 0


def is_failing(seen: Evidence) -> bool:
    """Whether it fails nearly everything."""
    lately = seen.lately_dispatched >= LATELY_MIN
    if lately and seen.lately_failed >= FAILING_RATIO * seen.lately_dispatched:
        return True
    return seen.dispatched >= FAILING_MIN and seen.failed >= FAILING_RATIO * seen.dispatched


def is_impaired(seen: Evidence) -> bool:
    """Whether it fails more than chance would."""
    enough = seen.dispatched >= IMPAIRED_MIN and seen.failed > IMPAIRED_RATIO * seen.dispatched
    return enough or is_failing(seen)


def is_condemned(breaker: Breaker, seen: Evidence) -> bool:
    """Whether edges' word would eject it at once, if it is not kept."""
    fails = _stumbles(seen) if breaker.state is State.RAMPING else is_failing(seen)
    return breaker.state in SERVING and (fails or _refuses(seen) or _is_mute(seen))


def is_leaving(breaker: Breaker, seen: Evidence, now_s: float) -> bool:
    """Whether its agent's word takes it out of use now, whatever edges say."""
    words = (Cause.LOST, Cause.STOPPED, Cause.LEAVING)
    return breaker.state in SERVING and any(_HOLDS[word](breaker, seen, now_s) for word in words)


def is_pardonable(breaker: Breaker) -> bool:
    """Whether it is out on edges' word alone."""
    return breaker.state is State.EJECTED and breaker.cause in PARDONABLE


# What each state takes from the evidence before it is judged


def _same(breaker: Breaker, seen: Evidence, now_s: float) -> Breaker:
    del seen, now_s
    return breaker


def _join(breaker: Breaker, seen: Evidence, now_s: float) -> Breaker:
    del now_s
    unseen = seen.word in {Word.NONE, Word.SERVES} or breaker.cold
    return breaker if unseen else replace(breaker, cold=True)


def _probe(breaker: Breaker, seen: Evidence, now_s: float) -> Breaker:
    if not seen.probe:
        return breaker
    return replace(breaker, probes=breaker.probes + 1, due_s=now_s + PROBE_GAP_S)


def _ramp(breaker: Breaker, seen: Evidence, now_s: float) -> Breaker:
    if not breaker.first_token and (seen.first_tokens or seen.probe):
        breaker = replace(breaker, first_token=True)
    behind = (seen.waiting or 0) > RAMP_WAITING_MAX or _stumbles(seen)
    slow = (seen.itl_ratio or 0.0) > RAMP_ITL_RATIO_MAX
    if now_s < breaker.due_s or not breaker.first_token or behind or slow:
        return breaker
    cap_slots = RAMP_FACTOR * breaker.cap_slots
    return replace(breaker, cap_slots=cap_slots, due_s=now_s + RAMP_STEP_S, first_token=False)


def _forgive(breaker: Breaker, seen: Evidence, now_s: float) -> Breaker:
    if not breaker.epoch and seen.word is Word.SERVES and seen.epoch:
        breaker = replace(breaker, epoch=seen.epoch)
    if not breaker.ejections or now_s < breaker.due_s:
        return breaker
    left = breaker.ejections - 1
    return replace(breaker, ejections=left, due_s=now_s + FORGIVEN_S * left)


_ABSORB: Mapping[State, Callable[[Breaker, Evidence, float], Breaker]] = {
    State.JOINING: _join,
    State.PROBING: _probe,
    State.RAMPING: _ramp,
    State.HEALTHY: _forgive,
}


# When each cause holds


def _restarted(breaker: Breaker, seen: Evidence) -> bool:
    known = breaker.epoch and seen.epoch and seen.word is Word.SERVES
    return bool(known) and breaker.epoch != seen.epoch


def _stumbles(seen: Evidence) -> bool:
    return seen.failed > IMPAIRED_RATIO * seen.dispatched


def _refuses(seen: Evidence) -> bool:
    return seen.refusing_edges >= (1 if seen.agent_silent else REFUSING_EDGES)


def _is_mute(seen: Evidence) -> bool:
    return seen.unanswered_s >= seen.patience_s


_HOLDS: Mapping[Cause, Callable[[Breaker, Evidence, float], bool]] = {
    Cause.FOUND: lambda b, e, _: e.word is Word.SERVES and not b.cold,
    Cause.STARTED: lambda b, e, _: e.word is Word.SERVES and b.cold,
    Cause.PROBED: lambda b, _e, _n: b.probes >= probes_needed(b),
    Cause.UNPROBED: lambda b, e, n: (
        (e.agent_silent or not e.probes_tell)
        and e.word is Word.SERVES
        and n >= b.since_s + UNPROBED_S
    ),
    Cause.FULL: lambda b, e, _: b.cap_slots >= e.full_slots,
    Cause.RECOVERED: lambda _b, e, _n: e.failed <= RECOVERED_RATIO * e.dispatched,
    Cause.LOST: lambda _b, e, _n: e.word is Word.LOST,
    Cause.STOPPED: lambda b, e, _: e.word is Word.STOPPED or _restarted(b, e),
    Cause.LEAVING: lambda _b, e, _n: e.word is Word.LEAVING,
    Cause.RETURNED: lambda _b, e, _n: e.word not in {Word.LEAVING, Word.NONE},
    Cause.PROBE_FAILED: lambda _b, e, _n: e.probe is False,
    Cause.REFUSED: lambda _b, e, _n: _refuses(e) and not e.kept,
    Cause.UNANSWERED: lambda _b, e, _n: _is_mute(e) and e.counts,
    Cause.FAILING: lambda _b, e, _n: is_failing(e) and e.counts,
    Cause.STUMBLED: lambda _b, e, _n: _stumbles(e) and e.counts,
    Cause.SPARED: lambda _b, e, _n: is_impaired(e) and e.spared and e.counts,
    Cause.IMPAIRED: lambda _b, e, _n: is_impaired(e),
    Cause.PARDONED: lambda b, e, _: (
        (e.pardoned or e.hold is Hold.CLOSED)
        and e.hold is not Hold.OPEN
        and e.word is Word.SERVES
        and b.cause in PARDONABLE
    ),
    Cause.RESTARTED: lambda b, e, _: (
        b.ejections <= 1 and _restarted(b, e) and e.hold is not Hold.OPEN
    ),
    Cause.WAITED: lambda b, e, n: (
        n >= b.until_s and e.word is Word.SERVES and e.hold is not Hold.OPEN
    ),
    Cause.HELD: lambda _b, e, _n: e.hold is Hold.OPEN,
}


# What each state begins with


def _enter(
    breaker: Breaker, target: State, cause: Cause, seen: Evidence, now_s: float, dice: Dice
) -> Breaker:
    moved = replace(breaker, state=target, cause=cause, since_s=now_s)
    if target is State.EJECTED:
        return _eject(moved, now_s, dice)
    if breaker.state not in SERVING:
        moved = replace(moved, counts_from_s=now_s, epoch=seen.epoch or breaker.epoch)
    match target:
        case State.PROBING:
            return replace(moved, probes=0, due_s=now_s)
        case State.RAMPING:
            cap_slots, due_s = _first_cap(moved, seen), now_s + RAMP_STEP_S
            return replace(moved, cap_slots=cap_slots, due_s=due_s, first_token=False)
        case State.HEALTHY:
            return replace(moved, due_s=now_s + FORGIVEN_S * moved.ejections)
        case State.JOINING:
            return replace(moved, cold=True)
        case _:
            return moved


def _first_cap(breaker: Breaker, seen: Evidence) -> float:
    ratio = RAMP_FIRST_RATIO * 0.5 ** max(0, breaker.ejections - 1)
    return max(RAMP_LEAST_SLOTS, max(RAMP_LEAST_RATIO, ratio) * seen.full_slots)


def _eject(breaker: Breaker, now_s: float, dice: Dice) -> Breaker:
    if breaker.cause is Cause.HELD:  # that is no fault of its own
        return replace(breaker, until_s=now_s)
    ejections = min(EJECTIONS_MAX, breaker.ejections + 1)
    wait_s = min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** (ejections - 1))
    wait_s *= 1.0 + BACKOFF_JITTER * (2.0 * dice.random() - 1.0)
    return replace(breaker, ejections=ejections, until_s=now_s + wait_s)

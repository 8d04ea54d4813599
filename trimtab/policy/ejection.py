"""Who of a pool may be ejected on the edges' word alone: one decision over all its replicas.

Partial failure (more than 5 % of requests) is worth an ejection only when the others can carry the
load; else the replica stays in use, DEGRADED, and edges avoid it where they can. So:
- the capacity test must hold for HOLD_S; one such ejection in GAP_S; at most half of the pool; and
  a replica without which nobody would serve stays, whatever edges count;
- when two thirds of the pool begin to fail within PANIC_SPAN_S, the cause is likely common (bad
  input, a credential, the edges' network) and ejecting would only move it: nothing is ejected,
  what was ejected so comes back, and a person is told. This holds PANIC_HOLD_S, two windows of
  counts, so that replicas that come back with clean counts don't make their peers look bad;
- when nobody serves, what was ejected on edges' word comes back: some answers beat none.
What agents confirm is no subject here: a dead engine is always out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trimtab.model import BreakerState
from trimtab.policy.capacity import suffices

HOLD_S = 5.0
GAP_S = 10.0
PANIC_RATIO = 2 / 3
PANIC_SPAN_S = 10.0
PANIC_HOLD_S = 60.0
STEADY = frozenset({BreakerState.HEALTHY, BreakerState.DEGRADED})


@dataclass(frozen=True, slots=True)
class Member:
    """One replica of the pool."""

    name: str
    state: BreakerState
    condemned: bool = False
    """Edges' word would eject it at once."""
    leaving: bool = False
    """Its agent takes it out of use at this moment."""
    impaired: bool = False
    """It fails more than chance would."""
    held: bool = False
    """An operator says that counts do not eject it."""
    out: bool = False
    """Ejected on edges' word alone, while its agent has nothing against it."""
    carries_work_per_s: float = 0.0

    @property
    def serves(self) -> bool:
        """Whether clients get something from it."""
        in_use = self.state in STEADY or self.state is BreakerState.RAMPING
        return in_use and not self.condemned and not self.leaving

    @property
    def doubted(self) -> bool:
        """Whether edges have something against it."""
        return self.out or (self.state in STEADY and (self.impaired or self.condemned))


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the pool says to its members' breakers."""

    spared: str = ""
    """The one that may go now."""
    kept: frozenset[str] = frozenset()
    """Those that edges' word may not eject."""
    pardon: bool = False
    """What edges' word ejected comes back."""
    alarm: str = ""
    """For people; empty when there is nothing to tell."""


@dataclass(slots=True)
class Docket:
    """What one pool remembers between rulings; bounded by its members."""

    onsets_s: dict[str, float] = field(default_factory=dict)
    """Since when each is doubted."""
    spare_since_s: dict[str, float] = field(default_factory=dict)
    """Since when the others could carry its load."""
    last_s: float = float("-inf")
    """The last time that one was spared."""
    panic_until_s: float = float("-inf")
    alarm: str = ""


def rule(
    docket: Docket, members: Sequence[Member], offered_work_per_s: float, now_s: float
) -> Ruling:
    """Decide for this moment; call it about twice a second. O(members log members)."""
    _note_onsets(docket, members, now_s)
    _note_panic(docket, members, now_s)
    panic = now_s < docket.panic_until_s
    serving = [member.name for member in members if member.serves]
    last = frozenset(m.name for m in members if not any(name != m.name for name in serving))
    kept = frozenset(member.name for member in members) if panic else last
    spared = _spare(docket, members, kept, offered_work_per_s, now_s)
    pardon = any(member.out for member in members) and (panic or not serving)
    return Ruling(spared, kept, pardon, docket.alarm if panic else "")


def _note_onsets(docket: Docket, members: Sequence[Member], now_s: float) -> None:
    docket.onsets_s = _since(docket.onsets_s, [m.name for m in members if m.doubted], now_s)


def _note_panic(docket: Docket, members: Sequence[Member], now_s: float) -> None:
    voters = sum(member.out or member.state in STEADY for member in members)
    onsets_s = sorted(docket.onsets_s.values())
    most = max(
        (bisect_right(onsets_s, at_s + PANIC_SPAN_S) - i for i, at_s in enumerate(onsets_s)),
        default=0,
    )
    if voters < 2 or most < PANIC_RATIO * voters:
        return
    docket.panic_until_s = now_s + PANIC_HOLD_S
    docket.alarm = (
        f"{most} of {voters} replicas began to fail within {PANIC_SPAN_S:.0f} s, and no agent "
        "confirms it: a common cause is likely (input, credential, network); nothing is ejected"
    )


def _spare(
    docket: Docket,
    members: Sequence[Member],
    kept: frozenset[str],
    offered_work_per_s: float,
    now_s: float,
) -> str:
    carried = sum(member.carries_work_per_s for member in members)
    able = [
        member.name
        for member in members
        if member.impaired
        and not member.held
        and member.state in STEADY
        and member.name not in kept
        and suffices(offered_work_per_s, carried - member.carries_work_per_s)
    ]
    docket.spare_since_s = _since(docket.spare_since_s, able, now_s)
    held = [name for name in able if now_s - docket.spare_since_s[name] >= HOLD_S]
    out = sum(member.out for member in members)
    if not held or out + 1 > len(members) // 2 or now_s - docket.last_s < GAP_S:
        return ""
    docket.last_s = now_s
    return min(held, key=lambda name: (docket.onsets_s[name], name))


def _since(before: Mapping[str, float], names: Sequence[str], now_s: float) -> dict[str, float]:
    return {name: before.get(name, now_s) for name in names}

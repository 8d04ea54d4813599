"""Overrides as `ctl` shows and judges them: pure functions of a fleet.

Rule: what a change will do is worked out by the very policy that will do it (policy/shares).
"""

from __future__ import annotations

from collections.abc import Sequence

from ctl import nouns
from ctl.columns import ABSENT, breaker, span, text
from ctl.exits import CtlError, Exit
from ctl.render import Table
from trimtab.model import BreakerState
from trimtab.policy.shares import ratios, scaled
from trimtab.steered import AuditEntry, Override, OverrideKind, Share
from trimtab.verdict import is_open
from trimtab.views import Fleet, ReplicaView

HOLDS = (OverrideKind.HOLD_OPEN, OverrideKind.HOLD_CLOSED)
_WORDS = {
    OverrideKind.HOLD_OPEN: "held open",
    OverrideKind.HOLD_CLOSED: "held closed",
    OverrideKind.PAUSE: "paused",
    OverrideKind.EDGE_DRAIN: "draining",
}
BY = ("LEFT", "BY", "REASON", "REVISION")


def pool_of(fleet: Fleet, name: str) -> list[ReplicaView]:
    """The replicas of a model; CtlError when there is no such pool."""
    known = [pool.pool for pool in fleet.pools]
    if name not in known:
        hint = nouns.closest(name, known) or " See: ctl get pools"
        raise CtlError(Exit.NOT_FOUND, f'there is no model "{name}".{hint}')
    return [replica for replica in fleet.replicas if replica.route.pool == name]


def parse(words: Sequence[str], members: Sequence[ReplicaView]) -> tuple[Share, ...]:
    """Weights as typed, r1=70 r2=30; CtlError when they are none."""
    known = [member.route.replica for member in members]
    shares = []
    for word in words:
        name, is_weight, number = word.partition("=")
        if not is_weight or not number.replace(".", "", 1).isdecimal():
            raise CtlError(Exit.USAGE, f'"{word}" is no weight: give NAME=NUMBER, like gpu0=70')
        if name not in known:
            hint = nouns.closest(name, known) or f" It has {', '.join(known)}."
            raise CtlError(Exit.NOT_FOUND, f'the model has no replica "{name}".{hint}')
        shares.append(Share(name, float(number)))
    return tuple(shares)


def impact(pool: str, members: Sequence[ReplicaView], shares: Sequence[Share]) -> str:
    """What these weights make of the slots of a pool, in a line."""
    opened = {r.route.replica: r for r in members if is_open(r)}
    slots = {name: _slots(replica) for name, replica in opened.items()}
    steady = [n for n, r in opened.items() if r.route.breaker is not BreakerState.RAMPING]
    given = ratios(slots, {share.replica: share.weight for share in shares}, steady)
    new = {name: scaled(count, given[name]) for name, count in slots.items()}
    parts = [f"{name} {opened[name].limit_slots} -> {new[name]}" for name in opened]
    total = sum(replica.limit_slots for replica in opened.values())
    return f"Impact: {pool}: {total} -> {sum(new.values())} open slots ({', '.join(parts)})"


def weights(fleet: Fleet, pools: Sequence[str]) -> Table:
    """The replicas of these pools, and what was set for them."""
    rows = []
    for pool in pools:
        override = find(fleet, OverrideKind.WEIGHTS, pool)
        given = {s.replica: f"{s.weight:g}" for s in override.weights} if override else {}
        for replica in pool_of(fleet, pool):
            name = replica.route.replica
            rows.append(
                (
                    *(text(pool), text(name), given.get(name, ABSENT), f"{replica.weight:.2f}"),
                    f"{replica.limit_slots}/{replica.full_slots}",
                    *_by(override),
                )
            )
    return Table(("MODEL", "REPLICA", "SET", "WEIGHT", "SLOTS", *BY), tuple(rows))


def breakers(fleet: Fleet, replicas: Sequence[ReplicaView]) -> Table:
    """Their breakers, and who holds them."""
    rows = []
    for replica in replicas:
        hold = held(fleet, replica.route.replica)
        rows.append(
            (
                *(text(replica.route.replica), breaker(replica), span(replica.breaker_age_ms)),
                *(str(replica.ejections), text(replica.breaker_reason)),
                words(hold) if hold else ABSENT,
                *_by(hold),
            )
        )
    titles = ("REPLICA", "BREAKER", "SINCE", "EJECTIONS", "WHY", "HOLD", *BY)
    return Table(titles, tuple(rows), frozenset({1}))


def held(fleet: Fleet, replica: str) -> Override | None:
    """A replica's hold."""
    found = (find(fleet, kind, replica) for kind in HOLDS)
    return next((one for one in found if one), None)


def find(fleet: Fleet, kind: OverrideKind, target: str = "") -> Override | None:
    """The one of a kind for a target."""
    known = (one for one in fleet.overrides if (one.kind, one.target) == (kind, target))
    return next(known, None)


def words(override: Override) -> str:
    """What it says, without who and when."""
    shares = " ".join(f"{share.replica}={share.weight:g}" for share in override.weights)
    return text(shares or _WORDS.get(override.kind, override.kind.name))


def banner(fleet: Fleet) -> list[str]:
    """What operators override now, a line each; the pause first."""
    order = sorted(
        fleet.overrides, key=lambda one: (one.kind is not OverrideKind.PAUSE, one.target)
    )
    return [f"  * {_title(one)} {_whose(one)}" for one in order]


def audit_line(entry: AuditEntry, when: str) -> str:
    """One change in a line."""
    before = f"{text(entry.before)} -> " if entry.before else ""
    reason = f'  "{text(entry.reason)}"' if entry.reason else ""
    return (
        f"{when}  {text(entry.actor)}  {text(entry.action)} {text(entry.target)}: "
        f"{before}{text(entry.after)}  (revision {entry.revision}){reason}"
    )


def _slots(replica: ReplicaView) -> int:
    """Without weights; what a ramp allows is known only as it is."""
    ramps = replica.route.breaker is BreakerState.RAMPING
    return replica.limit_slots if ramps else replica.full_slots


def _by(override: Override | None) -> tuple[str, ...]:
    if override is None:
        return (ABSENT,) * len(BY)
    left, reason = span(override.left_ms), text(override.reason)
    return (left, text(override.actor), reason, str(override.revision or ABSENT))


def _title(one: Override) -> str:
    if one.kind is OverrideKind.PAUSE:
        return "AUTOMATION IS PAUSED: edges' counts eject nobody, limits stand still"
    if one.kind is OverrideKind.EDGE_DRAIN:
        return f"edge {text(one.target)} is draining"
    if one.kind is OverrideKind.WEIGHTS:
        return f"weights of {text(one.target)}: {words(one)}"
    return f"breaker of {text(one.target)} is {words(one)}"


def _whose(one: Override) -> str:
    reason = f": {text(one.reason)}" if one.reason else ""
    return f"(by {text(one.actor)}, {span(one.left_ms)} left{reason})"

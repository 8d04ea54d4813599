"""What operators do by hand: stored with its record first, then followed.

Rules: all is checked before anything changes; a change may be kept to a revision (`if_revision`):
then it is refused if what it is about was changed after that; an override has an end. What takes
the last open replica from a pool has to say so, also when two admins take one each.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from controlplane.core.audit import Deed
from controlplane.core.bounds import clip
from controlplane.core.events import BreakerReset, IntentSet, OverrideSet
from controlplane.core.overrides import OVERRIDES_MAX, key, words
from controlplane.core.records import INTENTS, Wish, pack
from controlplane.core.serving import emptied
from controlplane.loop import ControlLoop
from controlplane.saver import ChangedError
from controlplane.store.protocol import Absent, Compare, RevisionIs
from trimtab.model import Intent, Probe, ProbeResult
from trimtab.runtime import clock
from trimtab.steered import Order, Override, OverrideKind

SETTABLE = frozenset({Intent.ACTIVE, Intent.CORDONED, Intent.DRAINING, Intent.SPARE})
AT_ONCE_MAX = 64
"""Replicas of one change: as many as a node has at most."""
ACTIONS = {
    OverrideKind.WEIGHTS: "weights",
    OverrideKind.PAUSE: "automation",
    OverrideKind.EDGE_DRAIN: "edge",
}
FOR_MAX_MS = 30 * 86_400_000
WEIGHT_MAX = 1_000_000.0
PROBE_MAX_MS = 30_000
PROBE_GRACE_S = 2.0


class ConflictError(Exception):
    """What was to be changed is not what it was, or can't be; says what it is."""


async def set_intents(
    loop: ControlLoop, replicas: Sequence[str], intent: Intent, order: Order
) -> tuple[int, list[Intent]]:
    """State a wish for some replicas at once; its revision and what it was before.

    Raises StoreError, ConflictError; KeyError for one that is not known, ValueError.
    """
    if intent not in SETTABLE:
        allowed = ", ".join(known.name for known in sorted(SETTABLE))
        raise ValueError(f"intent must be one of {allowed}")
    if not 0 < len({*replicas}) == len(replicas) <= AT_ONCE_MAX:
        raise ValueError(f"give 1 to {AT_ONCE_MAX} replicas, each once")
    known = loop.registry.replicas
    wish = Wish(intent, clip(order.reason), clip(order.actor), clock.wall_s())
    async with loop.steering:
        previous = {name: known[name].wish for name in replicas}
        _refuse_outage(loop, replicas if intent is not Intent.ACTIVE else (), order)
        before = {INTENTS + n: None if old == Wish() else pack(old) for n, old in previous.items()}
        was = ", ".join(sorted({old.intent.name for old in previous.values()}))
        deed = Deed(order, "intent", ", ".join(replicas), was, intent.name)
        revision = await _change(loop, dict.fromkeys(before, pack(wish)), before, deed)
        for name in replicas:
            loop.tell(IntentSet(name, wish))
    return revision, [old.intent for old in previous.values()]


async def set_override(
    loop: ControlLoop, wanted: Override, for_ms: int, order: Order
) -> tuple[int, Override | None]:
    """Set one for a while, or end it (0); its revision, 0 if there was none, and what was before.

    Raises StoreError, ConflictError; KeyError for a target that is not known, ValueError.
    """
    _check(loop, wanted, for_ms)
    async with loop.steering:
        return await _set_override(loop, wanted, for_ms, order)


async def _set_override(
    loop: ControlLoop, wanted: Override, for_ms: int, order: Order
) -> tuple[int, Override | None]:
    if wanted.kind is OverrideKind.HOLD_OPEN and for_ms:
        _refuse_outage(loop, [wanted.target], order)
    name = key(wanted.kind, wanted.target)
    old = loop.registry.overrides.get(name)
    new = None if for_ms == 0 else _made(wanted, for_ms, order)
    if old is None and new is None:
        return 0, None
    if old is None and len(loop.registry.overrides) >= OVERRIDES_MAX:
        raise ConflictError(f"there are {OVERRIDES_MAX} overrides already: end some first")
    until = f" for {round(for_ms / 1000)} s" if new else ""
    deed = Deed(
        *(order, ACTIONS.get(wanted.kind, "breaker"), wanted.target or "fleet"),
        *(words(old) or "automatic", (words(new) or "automatic") + until),
    )
    before = {name: None if old is None else pack(old)}
    revision = await _change(loop, {name: None if new is None else pack(new)}, before, deed)
    told = None if new is None else replace(new, revision=revision)
    loop.tell(OverrideSet(name, told, order.actor))
    return revision, old


async def reset_breaker(loop: ControlLoop, replica: str, order: Order) -> tuple[int, str]:
    """Forget what is held against a replica, and end its hold; the revision, and what that was.

    Raises StoreError, ConflictError; KeyError for one that is not known.
    """
    breaker = loop.registry.replicas[replica].standing.breaker
    name = key(OverrideKind.HOLD_OPEN, replica)
    hold = loop.registry.overrides.get(name)
    held = f", {words(hold)}" if hold else ""
    was = f"{breaker.state.name}, {breaker.ejections} ejections{held}"
    deed = Deed(order, "breaker", replica, was, "reset")
    before = {name: pack(hold)} if hold else {}
    revision = await _change(loop, dict.fromkeys(before), before, deed)
    if hold:
        loop.tell(OverrideSet(name, None, order.actor))
    loop.tell(BreakerReset(replica, order.actor, order.reason))
    return revision, was


async def probe(loop: ControlLoop, replica: str, timeout_ms: int) -> ProbeResult | None:
    """Have its agent ask it for a token; None when no agent is connected, or none answers."""
    timeout_ms = min(timeout_ms or PROBE_MAX_MS, PROBE_MAX_MS)
    agent = loop.agent_of(replica)
    if agent is None:
        return None
    with loop.probes.asked() as (number, answer):
        agent.tell(Probe(number, replica, timeout_ms))
        try:
            async with asyncio.timeout(timeout_ms / 1000 + PROBE_GRACE_S):
                return await answer
        except TimeoutError:
            return None


def _refuse_outage(loop: ControlLoop, closing: Sequence[str], order: Order) -> None:
    left = [] if order.outage_ok else emptied(loop.registry.replicas.values(), closing)
    if left:
        who = f"{clip(', '.join(closing))} {'is' if len(closing) == 1 else 'are'}"
        raise ConflictError(
            f"nothing was changed: {who} the last of {', '.join(left)} that is open, and clients "
            "would wait and be refused.\nLook again: ctl get replicas"
        )


def _check(loop: ControlLoop, wanted: Override, for_ms: int) -> None:
    if wanted.kind is OverrideKind.UNSPECIFIED:
        raise ValueError("kind must be one of WEIGHTS, HOLD_OPEN, HOLD_CLOSED, PAUSE, EDGE_DRAIN")
    if for_ms > FOR_MAX_MS:
        raise ValueError("an override ends within 30 days")
    if wanted.kind is OverrideKind.PAUSE:
        if wanted.target:
            raise ValueError("a pause is for the whole fleet")
        return
    if wanted.kind is OverrideKind.EDGE_DRAIN and for_ms:
        _ = loop.registry.edges.by_name[wanted.target]
    elif wanted.kind in {OverrideKind.HOLD_OPEN, OverrideKind.HOLD_CLOSED}:
        _ = loop.registry.replicas[wanted.target]
    if wanted.kind is not OverrideKind.WEIGHTS:
        return
    if wanted.target not in loop.registry.pools():
        raise KeyError(wanted.target)
    if for_ms:
        _check_weights(loop, wanted)


def _check_weights(loop: ControlLoop, wanted: Override) -> None:
    named = [share.replica for share in wanted.weights]
    if not 0 < len({*named}) == len(named) <= AT_ONCE_MAX:
        raise ValueError(f"give the weights of 1 to {AT_ONCE_MAX} replicas, each once")
    for share in wanted.weights:
        replica = loop.registry.replicas.get(share.replica)
        if replica is None or replica.route is None or replica.route.pool != wanted.target:
            raise ValueError(f"{clip(share.replica)} is no replica of {wanted.target}")
        if not math.isfinite(share.weight) or not 0 <= share.weight <= WEIGHT_MAX:
            raise ValueError(f"the weight of {share.replica} must be 0 to {WEIGHT_MAX:.0f}")
    if not any(share.weight for share in wanted.weights):
        raise ValueError("not all weights may be 0: to close replicas: ctl cordon")


def _made(wanted: Override, for_ms: int, order: Order) -> Override:
    now_ms = round(1000 * clock.wall_s())
    return replace(
        wanted,
        actor=clip(order.actor),
        reason=clip(order.reason),
        at_ms=now_ms,
        until_ms=now_ms + for_ms,
        left_ms=0,
        revision=0,
    )


async def _change(
    loop: ControlLoop,
    changes: Mapping[str, bytes | None],
    before: Mapping[str, bytes | None],
    deed: Deed,
) -> int:
    compares: list[Compare] = []
    limit = deed.order.if_revision
    for name in changes if limit is not None else ():
        entry = await loop.store.get(name)
        if entry is not None and limit is not None and entry.mod_revision > limit:
            raise ConflictError(_changed(deed, f"at revision {entry.mod_revision}"))
        compares.append(RevisionIs(name, entry.mod_revision) if entry else Absent(name))
    try:
        return await loop.change(changes, before, deed, compares)
    except ChangedError:
        raise ConflictError(_changed(deed, "at this moment")) from None


def _changed(deed: Deed, at: str) -> str:
    return (
        f"nothing was changed: {deed.action} of {deed.target} was changed {at}, after "
        f"{deed.order.if_revision}, and is {deed.before} now; you wanted {deed.after}.\n"
        "Who did it: ctl audit"
    )

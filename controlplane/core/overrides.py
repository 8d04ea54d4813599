"""What operators put in the place of automatic steering, as it holds now.

Rules: an override ends by its time, looked at in every tick, or by an operator's word; ending is
forgetting, so what was automatic goes on from what it has learnt meanwhile. At most OVERRIDES_MAX.
Who may break which rule of the policy is said there (`Hold`, policy/shares); here is only who and
until when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from controlplane.core.edges import Edge
from controlplane.core.events import Effect, Noted, OverrideSet, Save
from controlplane.core.records import ROOT
from controlplane.core.replica import Replica
from trimtab.policy.breaker import Hold
from trimtab.steered import Override, OverrideKind

OVERRIDES = ROOT + "overrides/"
OVERRIDES_MAX = 1_000
_PLACES = {
    OverrideKind.WEIGHTS: "weights/",
    OverrideKind.HOLD_OPEN: "hold/",
    OverrideKind.HOLD_CLOSED: "hold/",
    OverrideKind.PAUSE: "pause/",
    OverrideKind.EDGE_DRAIN: "edges/",
}
_HOLDS = {OverrideKind.HOLD_OPEN: Hold.OPEN, OverrideKind.HOLD_CLOSED: Hold.CLOSED}


def key(kind: OverrideKind, target: str) -> str:
    """Where it is stored; a replica has one hold, whichever."""
    return OVERRIDES + _PLACES[kind] + target


class Overrides:
    """All of them, by key."""

    def __init__(self, known: Mapping[str, Override] | None = None) -> None:
        self._known = dict(known or {})
        self._weights = _weights(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str) -> Override | None:
        """What is at a key."""
        return self._known.get(name)

    def take(self, event: OverrideSet, replicas: Iterable[Replica]) -> list[Effect]:
        """One was set or ended by an operator, and is in the store."""
        override, was = event.override, self._known.pop(event.key, None)
        if override is not None:
            self._known[event.key] = override
        self._apply_to_all(replicas)
        what = "override set" if override else "override ended"
        return [_noted(what, override or was, event.actor)] if override or was else []

    def expire(self, replicas: Iterable[Replica], wall_s: float) -> list[Effect]:
        """End those whose time is over."""
        over = {k: one for k, one in self._known.items() if one.until_ms <= 1000 * wall_s}
        for name in over:
            del self._known[name]
        if over:
            self._apply_to_all(replicas)
        saves: list[Effect] = [Save(name, None) for name in over]
        return [*saves, *(_noted("override expired", one, "") for one in over.values())]

    def apply(self, replica: Replica) -> None:
        """What holds for a replica, where decisions read it."""
        held = self._known.get(key(OverrideKind.HOLD_OPEN, replica.name))
        paused = key(OverrideKind.PAUSE, "") in self._known
        automatic = Hold.PAUSED if paused else Hold.NONE
        replica.hold = _HOLDS[held.kind] if held else automatic
        replica.load.frozen = paused
        replica.weights = self._weights.get(replica.route.pool if replica.route else "", {})

    def mark(self, edges: Mapping[str, Edge]) -> None:
        """What holds for edges."""
        for name, edge in edges.items():
            edge.leaving = key(OverrideKind.EDGE_DRAIN, name) in self._known

    def views(self, wall_s: float) -> tuple[Override, ...]:
        """All, for people."""
        now_ms = round(1000 * wall_s)
        return tuple(
            replace(one, left_ms=max(0, one.until_ms - now_ms))
            for _, one in sorted(self._known.items())
        )

    def _apply_to_all(self, replicas: Iterable[Replica]) -> None:
        self._weights = _weights(self._known)
        for replica in replicas:
            self.apply(replica)


def words(override: Override | None) -> str:
    """What it says, without who and when."""
    if override is None:
        return ""
    shares = " ".join(f"{share.replica}={share.weight:g}" for share in override.weights)
    return shares or override.kind.name.lower().replace("_", " ")


def _weights(known: Mapping[str, Override]) -> dict[str, dict[str, float]]:
    return {
        one.target: {share.replica: share.weight for share in one.weights}
        for one in known.values()
        if one.kind is OverrideKind.WEIGHTS
    }


def _noted(what: str, override: Override | None, actor: str) -> Noted:
    if override is None:
        return Noted(what, {})
    about = {OverrideKind.WEIGHTS: "pool", OverrideKind.EDGE_DRAIN: "edge"}.get(
        override.kind, "replica"
    )
    return Noted(
        what,
        {
            **({about: override.target} if override.target else {}),
            "override": words(override),
            "reason": override.reason,
            "actor": actor,
        },
    )

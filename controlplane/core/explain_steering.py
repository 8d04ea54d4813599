"""What operators put in the place of automatic steering, as far as it explains one replica.

Rule: each names who, for how much longer, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trimtab.model import BreakerState
from trimtab.steered import Override, OverrideKind
from trimtab.views import Concern

if TYPE_CHECKING:
    from controlplane.core.looks import Case

Span = Callable[[float], str]
ADVICE = {"hold": "ctl breaker reset {name}", "weights": "ctl weights reset {pool}"}


def hold(case: Case, span: Span) -> tuple[Concern, str]:
    """Whether somebody holds its breaker."""
    out = _find(case, OverrideKind.HOLD_OPEN, case.replica.name)
    if out:
        return Concern.BLOCKS, f"held out {_whose(out, span)}"
    kept = _find(case, OverrideKind.HOLD_CLOSED, case.replica.name)
    if kept:
        text = f"held in {_whose(kept, span)}: edges' counts do not eject it"
        return Concern.FINE, text
    paused = _find(case, OverrideKind.PAUSE, "")
    if paused:
        return Concern.FINE, f"automation is paused {_whose(paused, span)}: counts eject nobody"
    return Concern.FINE, "nobody holds its breaker"


def weights(case: Case, span: Span) -> tuple[Concern, str]:
    """Whether somebody gave its pool weights, and what that leaves it."""
    view = case.view
    found = _find(case, OverrideKind.WEIGHTS, view.route.pool)
    if found is None:
        return Concern.FINE, "none set: it has its own limit"
    given = {share.replica: share.weight for share in found.weights}
    most = max(given.values(), default=0.0)
    own = given.get(case.replica.name, most)
    held = f"it may hold {view.limit_slots} of {view.full_slots}"
    text = f"{own:g} where the largest is {most:g}, {_whose(found, span)}: {held}"
    if not view.limit_slots and not own:
        return Concern.BLOCKS, text
    ramps = view.route.breaker is BreakerState.RAMPING
    less = not ramps and own < most and view.limit_slots < view.full_slots
    return (Concern.LIMITS if less else Concern.FINE), text


def _find(case: Case, kind: OverrideKind, target: str) -> Override | None:
    known = (one for one in case.overrides if (one.kind, one.target) == (kind, target))
    return next(known, None)


def _whose(one: Override, span: Span) -> str:
    reason = f" ({one.reason})" if one.reason else ""
    return f"by {one.actor} for another {span(one.left_ms / 1000)}{reason}"

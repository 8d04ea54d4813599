"""A fleet in which operators have overridden everything, and the record of how they did."""

from __future__ import annotations

from dataclasses import replace

from controlplane.core.audit import Deed, follow
from tests.fakes.fleet import BIG, FLEET, GPU0, GPU1, GPU2, GPU3
from trimtab.steered import AuditEntry, Order, Override, OverrideKind, Share

PEER = replace(
    GPU0, route=replace(GPU0.route, replica="gpu4", node="h200b"), limit_slots=56, weight=0.3
)
AT_MS = 1_700_000_000_000
SHARES = (Share("gpu0", 70.0), Share("gpu4", 30.0))


def _override(
    kind: OverrideKind, target: str, who: tuple[str, str], left_ms: int, revision: int
) -> Override:
    until_ms = AT_MS + 3_600_000
    shares = SHARES if kind is OverrideKind.WEIGHTS else ()
    return Override(kind, target, shares, *who, AT_MS, until_ms, left_ms, revision)


STEERED = replace(
    FLEET,
    replicas=(replace(GPU0, weight=0.7, full_slots=128), GPU1, GPU2, GPU3, PEER),
    overrides=(
        _override(OverrideKind.HOLD_OPEN, "gpu1", ("ada", "fan"), 540_000, 411),
        _override(OverrideKind.PAUSE, "", ("bob", ""), 3_000_000, 412),
        _override(OverrideKind.WEIGHTS, BIG, ("ada", "canary"), 1_380_000, 410),
    ),
)


def _entries() -> list[AuditEntry]:
    deeds = [
        Deed(Order("ada", "canary"), "weights", BIG, "automatic", "gpu0=70 gpu4=30 for 3600 s"),
        Deed(Order("ada", "fan\x1b[2J"), "breaker", "gpu1", "automatic", "hold open for 600 s"),
        Deed(Order("root@cp1"), "token create", "t1", "", "agent n1, good for 3600 s"),
    ]
    found: list[AuditEntry] = []
    for number, deed in enumerate(deeds):
        last, at_ms = found[-1] if found else None, AT_MS + 60_000 * number
        found.append(follow(last, 409 + number, deed, at_ms))
    return [replace(one, revision=410 + number) for number, one in enumerate(found)]


ENTRIES = _entries()

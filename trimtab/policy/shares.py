"""How an operator's weights divide the load of a pool: as a part of each replica's own limit.

Requests are bound late: a replica gets what it has slots for, and the least loaded by its slots is
picked. So a weight scales slots, and nothing else needs to know of it: limits of 100 with weights
70 and 30 become 100 and 42, and requests go 70 to 30, in calm and under load.

Rules: slots only fall, so no weight exceeds a limit; the largest weight in use keeps all its slots,
and so does a replica that is not named. It is the largest of those that are open and do not ramp:
when the heavy one is gone or coming back, the others have all of theirs again, and a weight that
was forgotten costs no capacity. A weight above 0 leaves one slot; when all that are open have the
weight 0, weights count for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

LEAST = 1e-6  # of what is not nothing


def ratios(
    opened: Collection[str], weights: Mapping[str, float], settled: Collection[str]
) -> dict[str, float]:
    """What part of its limit each open replica of a pool may hold, at most 1.

    `settled` are those of them that do not ramp. O(replicas).
    """
    named = max(weights.values(), default=0.0)
    of = {name: weights.get(name, named) for name in opened}
    for peers in (settled, opened):
        most = max((of[name] for name in peers), default=0.0)
        if most > 0.0:
            return {name: _ratio(weight, most) for name, weight in of.items()}
    return dict.fromkeys(opened, 1.0)


def _ratio(weight: float, most: float) -> float:
    return max(LEAST, min(1.0, weight / most)) if weight > 0.0 else 0.0


def scaled(slots: int, ratio: float) -> int:
    """That part of a limit; whoever has a part has a slot."""
    return min(slots, max(1, int(slots * ratio))) if ratio > 0.0 else 0

"""How near the model of a fleet, left as it is, comes to what was measured.

Rules: a model that misses what is known is not asked about what is not; what is near enough is a
matter of what people decide by: shares in points, times and rates in factors, and no factor of a
time that nobody feels.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.whatif import Figures, Nearness

FELT_S = 0.25  # a first token that is later by less is no news


@dataclass(frozen=True, slots=True)
class _Bound:
    """How far off may be, to be near and not to be off."""

    near: float
    off: float


REFUSED_POINTS = _Bound(0.03, 0.15)
TOKENS = _Bound(1.1, 1.3)
WHOLE = _Bound(1.2, 1.6)
FIRST = _Bound(1.6, 4.0)


def judge(measured: Figures, model: Figures) -> tuple[Nearness, list[str]]:
    """The verdict, and what it hangs on."""
    misses = [
        _points(measured.refused_ratio, model.refused_ratio),
        _factor("tokens/s", measured.tokens_per_s, model.tokens_per_s, TOKENS),
        _time("whole answers, p50", measured.whole_p50_s, model.whole_p50_s, WHOLE),
        _time("first tokens, p50", measured.first_p50_s, model.first_p50_s, FIRST),
        _time("first tokens, p95", measured.first_p95_s, model.first_p95_s, FIRST),
    ]
    found = [miss for miss in misses if miss is not None]
    worst = max((nearness for nearness, _ in found), key=_ORDER.index, default=Nearness.NEAR)
    return worst, [words for _, words in found]


_ORDER = (Nearness.NEAR, Nearness.ROUGH, Nearness.OFF)
Miss = tuple[Nearness, str] | None


def _points(was: float, now: float) -> Miss:
    words = f"refused: measured {100 * was:.1f} %, in the model {100 * now:.1f} %"
    return _miss(abs(now - was), REFUSED_POINTS, words)


def _time(what: str, was_s: float | None, now_s: float | None, bound: _Bound) -> Miss:
    if was_s is None or now_s is None or abs(now_s - was_s) <= FELT_S:
        return None
    return _factor(f"{what} in s", was_s, now_s, bound)


def _factor(what: str, was: float, now: float, bound: _Bound) -> Miss:
    larger, smaller = max(was, now), min(was, now)
    factor = larger / smaller if smaller > 0.0 else float("inf") if larger > 0.0 else 1.0
    return _miss(factor, bound, f"{what}: measured {was:.3g}, in the model {now:.3g}")


def _miss(distance: float, bound: _Bound, words: str) -> Miss:
    if distance <= bound.near:
        return None
    return (Nearness.OFF if distance > bound.off else Nearness.ROUGH), words

"""When requests come: open loop, at a rate that follows a plan.

Rules: arrivals are a Poisson process; its rate is the plan's load times what the fleet can do, so
load 1 is all that it can; between two points of a plan the load stands, or grows along a line.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From here on the load is this."""

    at_s: float
    load: float
    ramp: bool = False
    """It grows from the point before along a line, instead of stepping."""


class Square(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A load that jumps between two values."""

    low: float
    high: float
    low_s: float
    high_s: float

    def points(self, until_s: float) -> tuple[Point, ...]:
        """The same as points."""
        period_s = self.low_s + self.high_s
        found = []
        for k in range(math.ceil(until_s / period_s)):
            found.append(Point(at_s=k * period_s, load=self.low))
            found.append(Point(at_s=k * period_s + self.low_s, load=self.high))
        return tuple(found)


Load = float | Square | tuple[Point, ...]


def points(load: Load, until_s: float) -> tuple[Point, ...]:
    """Any plan as points, the first at 0."""
    if isinstance(load, Square):
        return load.points(until_s)
    if isinstance(load, tuple):
        return load if load and load[0].at_s <= 0 else (Point(at_s=0.0, load=0.0), *load)
    return (Point(at_s=0.0, load=load),)


class Plan:
    """Load over time."""

    def __init__(self, plan: Sequence[Point]) -> None:
        self._points = tuple(plan)
        self._times = [point.at_s for point in plan]
        self.highest = max(point.load for point in plan)
        self.changes_s = tuple(self._times)

    def at(self, now_s: float) -> float:
        """The load at a time."""
        index = max(0, bisect_right(self._times, now_s) - 1)
        here = self._points[index]
        after = self._points[index + 1] if index + 1 < len(self._points) else None
        if after is None or not after.ramp:
            return here.load
        share = (now_s - here.at_s) / (after.at_s - here.at_s)
        return here.load + (after.load - here.load) * share

    def mean(self, start_s: float, end_s: float) -> float:
        """The mean load over a time, to a tenth of a second."""
        steps = max(1, round((end_s - start_s) * 10))
        width_s = (end_s - start_s) / steps
        return sum(self.at(start_s + (i + 0.5) * width_s) for i in range(steps)) / steps


def times(
    plan: Plan, rate_at_full_per_s: float, until_s: float, dice: random.Random
) -> Iterator[float]:
    """Arrivals, one by one: thinning of the highest rate (Lewis and Shedler 1979)."""
    highest_per_s = plan.highest * rate_at_full_per_s
    now_s = 0.0
    while highest_per_s > 0:
        now_s += dice.expovariate(highest_per_s)
        if now_s >= until_s:
            return
        if dice.random() * plan.highest < plan.at(now_s):
            yield now_s

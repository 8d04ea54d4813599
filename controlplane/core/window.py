"""The last minute of a thing's counters, in a bounded number of cells; and quantiles of buckets.

Rules: a cell is CELL_S long and the window is CELLS of them, so a total covers the last 55 to 60 s;
a cell holds at most KEY_LIMIT different counters, further ones are not counted.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from collections.abc import Hashable, Mapping

CELL_S = 5.0
CELLS = 12
KEY_LIMIT = 256

# vLLM's bounds for time to first token; they give a bucket its lower end, as only buckets that
# moved are sent. Engines with other bounds are a little less exact.
TTFT_BOUNDS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)


class Minute:
    """Counters over the last minute."""

    __slots__ = ("_cells", "_since_s")

    def __init__(self) -> None:
        self._cells: deque[tuple[int, Counter[Hashable]]] = deque(maxlen=CELLS)
        self._since_s: float | None = None

    def add(self, what: Hashable, amount: int, now_s: float) -> None:
        """Count."""
        if self._since_s is None:
            self._since_s = now_s
        number = int(now_s // CELL_S)
        if not self._cells or self._cells[-1][0] != number:
            self._cells.append((number, Counter()))
        cell = self._cells[-1][1]
        if what in cell or len(cell) < KEY_LIMIT:
            cell[what] += amount

    def totals(self, now_s: float) -> Counter[Hashable]:
        """Everything that was counted, by what it was."""
        oldest = int(now_s // CELL_S) - CELLS + 1
        total: Counter[Hashable] = Counter()
        for number, cell in self._cells:
            if number >= oldest:
                total.update(cell)
        return total

    def span_s(self, now_s: float) -> float:
        """How much time `totals` covers; 0 before the first count."""
        if self._since_s is None:
            return 0.0
        oldest_s = (now_s // CELL_S - CELLS + 1) * CELL_S
        return now_s - max(self._since_s, oldest_s)


def quantile(buckets: Mapping[float, int], share: float) -> float | None:
    """The value below which `share` of the observations lie, by interpolation in its bucket.

    Keys are upper bounds. None without observations; of the unbounded bucket only its lower end
    is known. O(buckets log buckets).
    """
    total = sum(buckets.values())
    if total <= 0:
        return None
    bounds = sorted({*TTFT_BOUNDS_S, *buckets})
    rank, seen = share * total, 0
    for bound in sorted(buckets):
        count = buckets[bound]
        if seen + count >= rank and count:
            place = bisect.bisect_left(bounds, bound)
            low_s = bounds[place - 1] if place else 0.0
            if math.isinf(bound):
                return low_s
            return low_s + (bound - low_s) * (rank - seen) / count
        seen += count
    return max(buckets)

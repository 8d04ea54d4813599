"""What must be so after a chaos run: each request ended once, honestly, and nothing is left of it.

Rules: pure. A request has two witnesses, its caller and the edge's record; they must say the same,
but for a caller that leaves, who can't know what it was about to get.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from bench.chaos.callers import Ask, End

Record = Mapping[str, Any]
GROWTH_MAX_RATIO = 0.05  # of the edge's memory, from the end of the warm-up to the run's end
WARM_UP_RATIO = 0.4  # until then the rings of kept records fill up
_NOT_WHOLE = frozenset({"replica_error", "timeout", "shed"})


def violations(
    asks: Sequence[Ask], records: Sequence[Record], metrics: Mapping[str, float]
) -> list[str]:
    """Every promise that was not kept, as a sentence."""
    by_caller: dict[str, list[Record]] = {ask.caller_id: [] for ask in asks}
    for record in records:
        by_caller.setdefault(record["caller_id"], []).append(record)
    found = [
        f"{ask.caller_id} ({ask.manner.value}, {'stream' if ask.stream else 'plain'}): {wrong}"
        for ask in asks
        if (wrong := disagreement(ask, by_caller[ask.caller_id]))
    ]
    return found + _miscounted(asks, records, metrics)


def disagreement(ask: Ask, records: Sequence[Record]) -> str:
    """What is wrong with the end of a request; empty if nothing is."""
    if ask.end in {End.LIE, End.CUT, End.NEVER, End.NO_ANSWER}:
        return f"{ask.end.value} {ask.what}".rstrip()
    if not records and unread(ask):
        return ""
    if len(records) != 1:
        return f"{len(records)} records, caller: {ask.end.value} {ask.what}".rstrip()
    (record,) = records
    outcome, code = record["outcome"], record["code"]
    agrees = {
        End.WHOLE: outcome == "ok",
        End.LEFT: True,  # what it did not wait for may have come in that moment
        End.REFUSED: code == ask.what and record["status"] == ask.status,
        End.TOLD: code == ask.what and outcome in _NOT_WHOLE,
    }[ask.end]
    said = f"{outcome} {record['status']} {code}".rstrip()
    return "" if agrees else f"caller: {ask.end.value} {ask.what}, edge: {said}"


def unread(ask: Ask) -> bool:
    """Whether it may have gone before the edge read it, as one that comes while that is frozen."""
    return ask.end is End.LEFT and not ask.status


def _miscounted(
    asks: Sequence[Ask], records: Sequence[Record], metrics: Mapping[str, float]
) -> list[str]:
    found = []
    counted = Counter[str]()
    for name, value in metrics.items():
        if name.startswith("trimtab_edge_requests_total"):
            counted[name.partition('outcome="')[2].partition('"')[0]] += int(value)
    noted = Counter(str(record["outcome"]) for record in records)
    if +counted != +noted:
        found.append(f"the edge counted {dict(counted)}, its records say {dict(noted)}")
    known = {record["caller_id"] for record in records}
    read = sum(ask.caller_id in known or not unread(ask) for ask in asks)
    if counted.total() != read:
        found.append(f"{read} requests were sent, the edge counted {counted.total()}")
    attempts = sum(
        int(value)
        for name, value in metrics.items()
        if name.startswith("trimtab_edge_upstream_attempts_total")
    )
    noted_attempts = sum(len(record["attempts"]) for record in records)
    if attempts != noted_attempts:
        found.append(f"the edge counted {attempts} attempts, its records have {noted_attempts}")
    return found


def left_over(rest: Mapping[str, int]) -> list[str]:
    """What is still held after everybody has gone."""
    return [f"{name}: {count} after the end" for name, count in rest.items() if count]


class Growth:
    """Memory over time, from the end of the warm-up."""

    def __init__(self, samples: Sequence[tuple[float, float]], period_s: float) -> None:
        """Of (seconds, MB), one a period."""
        warm = samples[int(WARM_UP_RATIO * len(samples)) :]
        self.from_mb = median(mb for _, mb in warm[: max(1, len(warm) // 5)])
        self.to_mb = median(mb for _, mb in warm[-max(1, len(warm) // 5) :])
        self.mb_per_hour = 3_600 * _slope(warm)
        self.each_minute_mb = [mb for _, mb in samples[:: max(1, int(60 / period_s))]]

    @property
    def flaw(self) -> str:
        """Empty when it is none to speak of."""
        if self.to_mb <= self.from_mb * (1 + GROWTH_MAX_RATIO):
            return ""
        return f"the edge's memory grew from {self.from_mb:.1f} to {self.to_mb:.1f} MB"


def _slope(points: Iterable[tuple[float, float]]) -> float:
    """Least squares."""
    xs, ys = zip(*points, strict=True)
    x, y = fmean(xs), fmean(ys)
    spread = sum((one - x) ** 2 for one in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread if spread else 0.0

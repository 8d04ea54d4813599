"""The page of a chaos run: each fault, and what callers saw from it until the next one."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.chaos.callers import Ask, End
from bench.chaos.faults import Strike
from bench.chaos.judge import Growth, Record, unread

CALM = "nothing yet"
_COLUMNS = (
    "what went wrong",
    "times",
    "requests",
    "whole",
    "of them tried again",
    "of them went on elsewhere",
    "refused",
    "broken, and told so",
    "left",
    "dishonest",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What was found."""

    command: str
    length_s: float
    load: float
    seed: int
    began_s: float
    strikes: Sequence[Strike]
    asks: Sequence[Ask]
    records: Sequence[Record]
    violations: Sequence[str]
    growth: Growth
    filled: str
    where: str


def page(run: Run) -> str:
    """All of it, as Markdown."""
    ends = Counter(ask.end for ask in run.asks)
    good, gone = not run.violations, _unread(run)
    lines = [
        "# Chaos: everything goes wrong, one after another\n",
        f"Written by `{run.command}` on {run.where}. A real edge, control plane and three agents",
        f"over three simulated engines, {run.length_s / 60:.0f} minutes at {run.load:g} of the"
        f" engines' capacity, seed {run.seed}: {len(run.strikes)}",
        f"faults, {len(run.asks)} requests without retries, 70 % streams, half chats; one in eight"
        " callers leaves early, some read or send slowly.\n",
        *_table(run),
        "",
        "A row counts the requests that ended between the beginning of such a fault and that of the"
        " next. Refused:",
        f"{_codes(run.asks, End.REFUSED)}. Told: {_codes(run.asks, End.TOLD)}.\n",
        "## Checks\n",
        f"- Each of {len(run.asks)} requests ended once: caller, decision record and counters"
        f" agree. {'Yes.' if good else 'NO, see below.'} ({gone} had left before the edge read"
        " them: it was frozen.)",
        f"- No dishonest end: {ends[End.WHOLE]} whole answers are byte for byte what the model says"
        " for their prompt, with the right usage, continued ones too;",
        "  broken streams ended in an error event and a cut.",
        "- Nothing is left: in flight and queued are 0 at the edge and in the engines."
        f" {run.filled}",
        "- The edge's memory in MB, a minute apart: "
        + ", ".join(f"{mb:.1f}" for mb in run.growth.each_minute_mb)
        + ".",
        "  It keeps records of 2,048 requests, and of 512 older ones that did not just go"
        " well, which fill up meanwhile, and 35 bytes of each.",
        f"  From the end of the warm-up on: {run.growth.from_mb:.1f} MB,"
        f" {run.growth.to_mb:.1f} MB at the end, slope {run.growth.mb_per_hour:+.1f} MB/h.",
    ]
    if run.violations:
        shown = [f"- {one}" for one in run.violations[:50]]
        lines += [f"\n## Not kept: {len(run.violations)}\n", *shown]
    return "\n".join(lines) + "\n"


def _unread(run: Run) -> int:
    known = {record["caller_id"] for record in run.records}
    return sum(unread(ask) and ask.caller_id not in known for ask in run.asks)


def _table(run: Run) -> list[str]:
    starts = [run.began_s + strike.at_s for strike in run.strikes]
    titles = [CALM, *(strike.fault.title for strike in run.strikes)]
    by_title: dict[str, list[Ask]] = {title: [] for title in titles}
    for ask in run.asks:
        by_title[titles[bisect.bisect(starts, ask.ended_s)]].append(ask)
    records = {str(record["caller_id"]): record for record in run.records}
    times = Counter(titles)
    rows = [_row(title, times[title], by_title[title], records) for title in sorted(by_title)]
    return [f"| {' | '.join(_COLUMNS)} |", "|---|" + "--:|" * (len(_COLUMNS) - 1), *rows]


def _row(title: str, times: int, asks: Sequence[Ask], records: Mapping[str, Record]) -> str:
    ends = Counter(ask.end for ask in asks)
    whole = [records.get(ask.caller_id, {}) for ask in asks if ask.end is End.WHOLE]
    tries = [record.get("attempts", ()) for record in whole]
    moved = sum(any(one["continued_at_tokens"] is not None for one in some) for some in tries)
    again = sum(len(some) > 1 for some in tries) - moved
    honest = {End.WHOLE, End.REFUSED, End.TOLD, End.LEFT}
    cells = (
        times, len(asks), ends[End.WHOLE], again, moved, ends[End.REFUSED], ends[End.TOLD],
        ends[End.LEFT], sum(count for end, count in ends.items() if end not in honest),
    )  # fmt: skip
    return f"| {title} | {' | '.join(map(str, cells))} |"


def _codes(asks: Sequence[Ask], end: End) -> str:
    codes = Counter(f"{ask.status} {ask.what}" for ask in asks if ask.end is end)
    return ", ".join(f"{count} `{code}`" for code, count in codes.most_common()) or "none"

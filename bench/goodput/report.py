"""The table: what was measured, in Markdown, and the numbers behind the plot, in JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.goodput import stats
from bench.goodput.client import End
from bench.goodput.scenario import SCALE, SLO_S, Scenario
from bench.goodput.stats import Record, Summary

_HEADER = (
    "| | goodput | good | first token p50 / p95 / p99, s | attempts | broken | error ends | "
    "failed | refused | late | starved | shut out | refusals with / without advice | CPU |"
)


@dataclass(slots=True)
class Results:
    """Everything of one run. A missing record has its reason in `absent` or in `mute`."""

    command: str
    machine: str
    versions: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    mute: dict[str, dict[str, str]] = field(default_factory=dict)  # scenario, peer: did not serve
    records: dict[str, dict[str, Record]] = field(default_factory=dict)  # scenario, peer
    quick: bool = False

    def add(self, peer: str, record: Record) -> None:
        """One more cell."""
        self.records.setdefault(record.scenario.name, {})[peer] = record


def markdown(results: Results) -> str:
    """The whole page."""
    lines = ["# Goodput under overload and faults, beside the peers", ""]
    if results.quick:
        lines += ["**A quick run: shortened scenarios, for trying things out.**", ""]
    lines += [*_preface(results), ""]
    for name, records in results.records.items():
        mute = results.mute.get(name, {})
        lines += [*_scenario(results, records)]
        lines += [f"| {results.titles[peer]} | did not serve |" for peer in mute]
        lines += [""]
    lines += ["## Versions", ""]
    lines += [f"- {results.titles[name]}: {text}" for name, text in results.versions.items()]
    missing = results.absent.items()
    lines += [f"- **{results.titles[name]}: could not be had: {why}**" for name, why in missing]
    return "\n".join([*lines, ""])


def _preface(results: Results) -> list[str]:
    return [
        f"Made by `{results.command}` on {results.machine}. Two simulated vLLM engines, real",
        "processes on loopback, one proxy after another, the same requests for all. Time runs",
        f"{SCALE:.0f} times as fast as in production: jobs of 2 s for 25 s, and every timer that",
        "can be configured likewise (`bench/peers/`). Clients behave as the OpenAI SDK does: two",
        "retries, `Retry-After` obeyed. A request is good when all of it came and its first token",
        f"within {SLO_S:.0f} s of its first submission.",
        "",
        "- *Goodput*: tokens of good requests ÷ what both engines, healthy and full, deliver in",
        "  the same time. **Bold**: the best of the scenario, and all within .01 of it.",
        "- *Possible*: the most that any proxy could reach here (a fluid bound, a bit generous).",
        "- *First token*: from the first submission, of the requests that got one.",
        "- *Attempts*: requests that reached the engines ÷ requests.",
        "- *Broken*: streams cut without a word. *Error ends*: streams that said so.",
        "- *Starved*: share of healthy engines' time with under a quarter of their fair share.",
        "- *Shut out*: times a healthy engine got none of 12 requests submitted in 2 s or more.",
        "- *CPU*: cores the proxy used. ~: the machine was busy, do not trust this row.",
    ]


def _scenario(results: Results, records: Mapping[str, Record]) -> list[str]:
    rows = {name: stats.summarize(record) for name, record in records.items()}
    scenario, capacity = next((r.scenario, r.capacity_tokens_s) for r in records.values())
    best = max(row.goodput_ratio for row in rows.values())
    possible = max(row.possible_ratio for row in rows.values())
    first = next(iter(records.values()))
    offered = sum(outcome.arrival.output_tokens for outcome in first.outcomes)
    lines = [
        f"## {scenario.name}: {scenario.title}",
        "",
        f"Offered {_ratio(offered / (capacity * scenario.duration_s))} of capacity "
        f"({len(first.outcomes)} requests in {scenario.duration_s:.0f} s; capacity "
        f"{capacity:.0f} tokens/s). Possible: {_ratio(possible)}.",
        "",
        _HEADER,
        "|---" * 14 + "|",
    ]
    for name, row in rows.items():
        lines.append(_row(results.titles[name], row, best))
    absent = [name for name in results.absent if name not in rows]
    lines += [f"| {results.titles[name]} | not to be had |" for name in absent]
    if scenario.light_load:
        light = (f"{results.titles[n]} {_ratio(r.light_good_ratio)}" for n, r in rows.items())
        lines += ["", f"Good of the light tenant's requests: {', '.join(light)}."]
    return lines


def _row(title: str, row: Summary, best: float) -> str:
    goodput = _ratio(row.goodput_ratio)
    if row.goodput_ratio >= best - 0.01:
        goodput = f"**{goodput}**"
    ends = row.ends
    failed = ends.get(End.FAILED.value, 0) + ends.get(End.TIMEOUT.value, 0)
    cells = (
        title + (" ~" if row.noisy else ""),
        goodput,
        _ratio(row.good_ratio),
        " / ".join("-" if math.isnan(wait) else f"{wait:.2f}" for wait in row.first_token_s),
        f"{row.attempts_per_request:.2f}",
        str(ends.get(End.BROKEN.value, 0)),
        str(ends.get(End.ERROR_EVENT.value, 0)),
        str(failed),
        str(ends.get(End.REFUSED.value, 0)),
        str(row.late + ends.get(End.UNFINISHED.value, 0)),
        _ratio(row.starved_ratio),
        str(row.shut_out),
        f"{row.refusals_with_advice} / {row.refusals_without}",
        f"{row.proxy_cpu_ratio:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def brief(record: Record) -> str:
    """A run in one line, while it goes on."""
    row = stats.summarize(record)
    return (
        f"goodput {_ratio(row.goodput_ratio):>4} of possible {_ratio(row.possible_ratio)}, "
        f"good {_ratio(row.good_ratio)}, attempts {row.attempts_per_request:.2f}, "
        f"light {row.light_good_ratio:.2f}, "
        f"shut out {row.shut_out}, starved {_ratio(row.starved_ratio)}, {row.ends}, "
        f"CPU {row.proxy_cpu_ratio:.2f}, lag {1000 * record.lag_p99_s:.0f} ms"
    )


def _ratio(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def series(results: Results, ours: str) -> dict[str, object]:
    """What the plot draws: by scenario and peer, per second; ours first."""
    drawn: dict[str, object] = {}
    for name, records in results.records.items():
        order = sorted(records, key=lambda peer: peer != ours)
        drawn[name] = {
            "title": _plot_title(next(iter(records.values())).scenario),
            "peers": {results.titles[peer]: _curves(records[peer]) for peer in order},
        }
    return drawn


def _plot_title(scenario: Scenario) -> str:
    return f"{scenario.name}: {scenario.title}"


def _curves(record: Record) -> dict[str, Sequence[float | None]]:
    capacity, scenario = record.capacity_tokens_s, record.scenario
    made = [stats.served_tokens_per_s(record, engine) for engine in (0, 1)]
    firsts = {
        f"first_token_p{100 * share:.0f}_s": stats.first_token_over_time(record, share)
        for share in (0.5, 0.95, 0.99)
    }
    return {
        "load": [scenario.load_at(float(second)) for second in range(len(made[0]))],
        "goodput": [tokens / capacity for tokens in stats.useful_tokens_per_s(record)],
        "engine_a": [tokens / capacity for tokens in made[0]],
        "engine_b": [tokens / capacity for tokens in made[1]],
    } | {name: [None if math.isnan(v) else v for v in waits] for name, waits in firsts.items()}

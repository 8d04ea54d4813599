"""Tables for people: how steering fares beside the well-known gateways, and which laws hold.

Rules: every table says what was offered and what was possible; numbers are means over the seeds;
a figure that misses its target stays in the table, and is named below it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sim.world.grid import Cell, light, missed
from sim.world.scenario import Scenario

LOADS = (0.8, 1.0, 1.2, 1.5, 2.0, 3.0)


def curve(cells: Iterable[Cell], labels: Mapping[str, str]) -> str:
    """Goodput over load: a row for each policy, a column for each load; labels are load@row."""
    rows: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        load, _, variant = cell.label.partition("@")
        rows.setdefault(labels[f"{cell.policy}@{variant}"], {})[load] = cell
    lines = ["| " + " | ".join(["", *(f"{load:g}x" for load in LOADS)]) + " |"]
    lines.append("|---" * (len(LOADS) + 1) + "|")
    for name, row in rows.items():
        figures = [_goodputs(row[f"{load:g}"]) for load in LOADS]
        lines.append("| " + " | ".join([name, *figures]) + " |")
    return "\n".join(lines)


def _goodputs(cell: Cell) -> str:
    return f"{cell.mean('goodput_60'):.2f} / {cell.mean('goodput_15'):.2f}"


def scenarios(cells: Sequence[Cell]) -> str:
    """A row for each scenario and policy."""
    head = (
        *("scenario", "policy", "offered", "goodput 60 s", "15 s", "p50 s", "p99 s"),
        *("refused", "failed", "broken", "attempts", "CAI", "PPI", "flips", "TTR s"),
    )
    lines = [_row(head), "|---|---" + "|--:" * (len(head) - 2) + "|"]
    for cell in cells:
        figures = [cell.label, cell.policy]
        figures += [f"{cell.mean(name):.2f}" for name in ("offered", "goodput_60", "goodput_15")]
        figures += [f"{cell.mean(name):.1f}" for name in ("ttft_p50_s", "ttft_p99_s")]
        figures += [f"{cell.mean(name):.0f}" for name in ("refused", "failed", "broken")]
        figures += [f"{cell.mean(name):.2f}" for name in ("attempts_per_job", "cai")]
        figures += [f"{cell.mean(name):.1f}" for name in ("ppi", "flips")]
        measured = cell.outcomes[0].metrics.ttr_s is not None
        figures.append(f"{cell.mean('ttr_s'):.0f}" if measured else "")
        lines.append(_row(figures))
    return "\n".join(lines)


def laws(cells: Sequence[Cell]) -> str:
    """A row for each invariant: where it was tried, where it was violated, and an example."""
    tried: Counter[str] = Counter()
    violated: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for cell in cells:
        for outcome in cell.outcomes:
            tried.update(outcome.checked)
            violated.update(outcome.violated.keys())
            for name, found in outcome.violated.items():
                examples.setdefault(name, f"{cell.label} seed {outcome.seed}: {found}")
    lines = [_row(("invariant", "runs", "violated in", "for instance")), "|---|--:|--:|---|"]
    for name in sorted(tried, key=_number):
        words = name.replace("_", " ")
        lines.append(_row((words, f"{tried[name]}", f"{violated[name]}", examples.get(name, ""))))
    return "\n".join(lines)


def shortfalls(cells: Sequence[Cell], wanted: Mapping[str, Scenario]) -> list[str]:
    """Targets that our own steering misses."""
    return [
        f"{cell.label}: {'; '.join(short)}"
        for cell in cells
        if cell.policy == "trimtab" and (short := missed(cell, wanted[cell.label].targets))
    ]


def tenants(cells: Sequence[Cell]) -> str:
    """How the light tenant fares beside one that floods."""
    lines = [_row(("policy", "light tenant served in 15 s")), "|---|--:|"]
    shared = [cell for cell in cells if "light" in cell.outcomes[0].metrics.tenants]
    lines += [_row((cell.policy, f"{light(cell):.2f}")) for cell in shared]
    return "\n".join(lines)


def _row(values: Iterable[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _number(name: str) -> tuple[int, str]:
    return int(name[1:].partition("_")[0]), name

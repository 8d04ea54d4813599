"""The table of `./run bench edge`, in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.edge.measure import (
    FLAT,
    FLAT_BURST,
    LARGE,
    LARGE_BODY_BYTES,
    MANY,
    ONE,
    PACED,
    PACED_GAP_US,
    PACED_STREAMS,
    Cell,
    Load,
    Row,
)

OTHERS_MAX_CORES = 0.05

_ABOUT = """\
Made by `{command}` on {machine}. The proxy has one core of its own; callers and an engine that
costs next to nothing (raw sockets, answers made beforehand) have the other. Trimtab is one edge
process with keys, accounting, queue, decision records and metrics on, behind a control plane that
pushes credits twice a second; the others are set up as for `./run bench goodput`, where none but
LiteLLM asks for a key.

- *requests/s*: {many} connections, each asks again when it has its answer; 1.9 KB there, 1 KB back.
  A rate near that without a proxy is the limit of the callers' core.
- *µs*: CPU time of the proxy's processes for each request or chunk. It says more than a rate where
  the machine is shared, but contention makes it larger, too: caches, and two threads of one core.
- *added*: to the same without a proxy, at one connection and at {many}. There the proxy is full, so
  it is its throughput seen from the other side.
- *{kilobytes} KB*: requests of about 100,000 tokens, {large} connections.
- *one by one*: {streams} streams of {rate:.0f} chunks a second each, all in the same moment, as the
  steps of an engine are: what a chunk costs, and how many a core would do.
- *at once*: {flat} streams never short of data, {burst} chunks in each write of the engine.
- *KB a stream*: resident memory over that before, for each of many open streams.
- ~: others took more than {others} of the proxy's core meanwhile (how much: the last column).
"""
_HEADER = (
    "| | requests/s | µs | added p50 / p99, ms, 1 conn. | {many} conn. "
    "| {kilobytes} KB: 1/s | ms CPU "
    "| one by one: µs | chunks/s a core | at once: chunks/s | µs | KB a stream | errors | others |"
)


def markdown(
    rows: Sequence[Row], missing: Sequence[str], command: str, machine: str, *, quick: bool
) -> str:
    """The whole page."""
    words = {
        "command": command,
        "machine": machine,
        "many": MANY.callers,
        "large": LARGE.callers,
        "kilobytes": LARGE_BODY_BYTES // 1000,
        "streams": PACED_STREAMS,
        "rate": 1e6 / PACED_GAP_US,
        "flat": FLAT.callers,
        "burst": FLAT_BURST,
        "others": OTHERS_MAX_CORES,
    }
    lines = ["# What a proxy costs", ""]
    if quick:
        lines += ["**A quick run, for trying things out.**", ""]
    lines += [_ABOUT.format(**words), _HEADER.format(**words), "|---" * 14 + "|"]
    base = next((row for row in rows if row.is_direct), None)
    lines += [_line(row, base) for row in rows]
    lines += ["", *(f"- {row.title}: {row.version}" for row in rows if not row.is_direct)]
    lines += [f"- not measured: {reason}" for reason in missing]
    return "\n".join([*lines, ""])


def _line(row: Row, base: Row | None) -> str:
    def value(load: Load, text: Callable[[Cell], str], *, of_cpu: bool = False) -> str:
        cell = row.cells.get(load.name)
        if cell is None or (of_cpu and row.is_direct):
            return ""
        return text(cell) + " ~" * (cell.others_cores > OTHERS_MAX_CORES)

    def added(load: Load) -> str:
        own, free = row.cells.get(load.name), base.cells.get(load.name) if base else None
        if own is None or free is None:
            return ""
        less = (0.0, 0.0) if row.is_direct else (free.p50_ms, free.p99_ms)
        return f"{own.p50_ms - less[0]:.2f} / {own.p99_ms - less[1]:.2f}"

    cells = [*row.cells.values()]
    parts = (
        row.title,
        value(MANY, lambda cell: f"{cell.per_s:,.0f}"),
        value(MANY, lambda cell: f"{cell.cpu_us:.0f}", of_cpu=True),
        added(ONE),
        added(MANY),
        value(LARGE, lambda cell: f"{cell.per_s:,.0f}"),
        value(LARGE, lambda cell: f"{cell.cpu_us / 1e3:.2f}", of_cpu=True),
        value(PACED, lambda cell: f"{cell.cpu_us:.1f}", of_cpu=True),
        value(PACED, lambda cell: f"{1e6 / max(cell.cpu_us, 1e-9):,.0f}", of_cpu=True),
        value(FLAT, lambda cell: f"{cell.per_s:,.0f}"),
        value(FLAT, lambda cell: f"{cell.cpu_us:.1f}", of_cpu=True),
        "" if row.is_direct or row.stream_bytes is None else f"{row.stream_bytes / 1e3:.0f}",
        str(sum(cell.errors for cell in cells)),
        f"{max((cell.others_cores for cell in cells), default=0.0):.2f}",
    )
    return f"| {' | '.join(parts)} |"


def brief(name: str, cell: Cell) -> str:
    """A cell in one line."""
    tail = f"p50 {cell.p50_ms:.3f} ms, p99 {cell.p99_ms:.3f} ms, errors {cell.errors}"
    return (
        f"{name:12} {cell.load.name:6} {cell.per_s:9,.0f}/s, CPU {cell.cpu_us:8.1f} us, {tail}, "
        f"others {cell.others_cores:.2f} cores"
    )

"""The tables of `./run bench controlplane`, in Markdown. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.controlplane.pure import Cost
from bench.controlplane.step import Row

OTHERS_MAX_CORES = 0.1
CLIENT_MAX_CORES = 0.85
CLIENT_LAG_MAX_S = 0.02

_STEPS = """\
Made by `{command}` on {machine}. One real control plane on one core (unix socket, SQLite in a
temporary folder), all agents and edges in one process on the other core, each with a connection of
its own. An agent has one engine and reports it and its GPU twice a second; an edge reports twice
a second the replicas that it has credits for, acks every push, and 1 report in 50 tells of requests
that begin to wait. About once a second an engine dies and comes back.

- *CPU*: cores the control plane used. *RSS*: its largest.
- *Dead*: from the agent's word to each edge. *Back*: from the answered probe to each edge. A
  change that comes within 50 ms of the one before waits for so long.
- *Missing*: edges that were not told of a change within 5 s.
- *Credits*: time between two pushes to an edge; the aim is 0.5 s.
- *Answer*: how long a health check takes beside all that.
- *Writes*: transactions of the store in a second for 100 replicas; two a death here.
- ~: another process took over {others} of the control plane's core; c: the *clients'* core was full
  ({client} cores, or their own loop late by {lag:.0f} ms at p99), so times are upper bounds.
"""
_STEP_HEADER = (
    "| agents / edges | CPU | RSS, MB | dead p50 / p99, ms | back p50 / p99, ms | missing "
    "| credits p50 / p99, s | answer p50 / p99, ms | messages in / out, 1/s | to edges, MB/s "
    "| credits, kB a push | writes, 1/s/100 | clients: CPU; lag p99, ms | faults |"
)
_COSTS = """\
## The pure core, in virtual time

The same `Registry`, `Ledger`, snapshot and subscriptions without gRPC and codec, every replica
reported and every edge reporting what it uses 2 times a second, one replica dying a second:
milliseconds of CPU for one second of the fleet, after warming up. *Push*: bytes of one edge's
credits on the wire. 1,000 ms is a core.
"""
_COST_HEADER = (
    "| replicas | edges | reports | edge reports | tick | split | routing | subscriptions "
    "| encoding | **total** | µs per replica and edge | push, kB |"
)


def markdown(
    rows: Sequence[Row], costs: Sequence[Cost], command: str, machine: str, *, quick: bool
) -> str:
    """The whole page."""
    lines = ["# What one control plane carries", ""]
    if quick:
        lines += ["**A quick run, for trying things out.**", ""]
    marks = {"others": OTHERS_MAX_CORES, "client": CLIENT_MAX_CORES, "lag": 1e3 * CLIENT_LAG_MAX_S}
    lines += [_STEPS.format(command=command, machine=machine, **marks)]
    if rows:
        lines += [_STEP_HEADER, "|---" * 14 + "|", *map(_row, rows), ""]
    if costs:
        lines += [_COSTS, _COST_HEADER, "|---" * 12 + "|", *map(_cost, costs), ""]
    faults = [f"- {row.agents}/{row.edges}: `{fault}`" for row in rows for fault in row.faults[:5]]
    return "\n".join([*lines, *faults, ""]) if faults else "\n".join(lines)


def _row(row: Row) -> str:
    use, span_s = row.use, row.span_s
    noisy = " ~" * (use.others_cores > OTHERS_MAX_CORES)
    lag_s = quantile(row.client_lag_s, 0.99)
    bound = " c" * (row.client_cores > CLIENT_MAX_CORES or lag_s > CLIENT_LAG_MAX_S)
    missing = 2 * row.decisions * row.edges - len(row.lost_s) - len(row.open_s)
    cells = (
        f"{row.agents:,} / {row.edges}{noisy}{bound}",
        f"{use.cores:.2f}",
        f"{use.rss_bytes / 1e6:.0f}",
        _pair(row.lost_s, 1e3, 0),
        _pair(row.open_s, 1e3, 0),
        str(missing),
        _pair(row.credits_gaps_s, 1.0, 2),
        _pair(row.answers_s, 1e3, 1),
        f"{row.messages_in / span_s:,.0f} / {row.messages_out / span_s:,.0f}",
        f"{row.bytes_out / span_s / 1e6:.2f}",
        f"{row.credits_bytes / 1e3:.1f}",
        f"{use.writes / span_s / row.agents * 100:.2f}",
        f"{row.client_cores:.2f}; {1e3 * lag_s:.0f}",
        str(len(row.faults)),
    )
    return f"| {' | '.join(cells)} |"


def _cost(cost: Cost) -> str:
    parts = (
        *(cost.report_ms, cost.edge_report_ms, cost.tick_ms, cost.split_ms),
        *(cost.routing_ms, cost.subscription_ms, cost.encode_ms),
    )
    cells = (
        f"{cost.replicas:,}",
        str(cost.edges),
        *(f"{part:,.1f}" for part in parts),
        f"**{sum(parts):,.0f}**",
        f"{1e3 * sum(parts) / cost.replicas / cost.edges:.2f}",
        f"{cost.push_bytes / 1e3:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def _pair(values: Sequence[float], scale: float, digits: int) -> str:
    shown = (f"{scale * quantile(values, share):.{digits}f}" for share in (0.5, 0.99))
    return " / ".join(shown)


def brief(row: Row) -> str:
    """A step in one line."""
    return f"{_row(row)}  {row.decisions} decisions, others {row.use.others_cores:.2f} cores"


def brief_cost(cost: Cost) -> str:
    """A size in one line."""
    return _cost(cost)

"""Draws what report.series wrote: `python plot.py SERIES.json FOLDER`. Needs only matplotlib.

One figure a scenario, one row a peer: the share of capacity that each engine delivered
(stacked) and the useful part of it; beside it, percentiles of the first-token time. Ours is the
first row.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found]

mpl.use("agg")
from matplotlib import pyplot as plt

_A, _B, _USEFUL, _LOAD = "#9ecae1", "#c7b8e0", "#08519c", "#888888"
_PLOT_HEIGHT_IN = 1.35
_FIRST_TOKEN_MAX_S = 20.0
_LIMIT_S = 5.0  # scenario.SLO_S; this file runs where our packages are not


def main() -> None:
    """Draw everything."""
    series = json.loads(pathlib.Path(sys.argv[1]).read_text())
    out = pathlib.Path(sys.argv[2])
    mpl.rcParams.update({"font.size": 8, "svg.fonttype": "none", "axes.spines.top": False})
    for name, scenario in series.items():
        figure = draw(scenario)
        for kind in ("svg", "png"):
            figure.savefig(out / f"goodput-{name}.{kind}", dpi=110, metadata=_undated(kind))
        plt.close(figure)


def draw(scenario: dict[str, Any]) -> Any:
    """One scenario: a row for each peer, ours first."""
    peers = scenario["peers"]
    figure, rows = plt.subplots(
        len(peers),
        2,
        figsize=(9.5, 0.9 + _PLOT_HEIGHT_IN * len(peers)),
        sharex=True,
        squeeze=False,
        width_ratios=(2, 1),
        layout="constrained",
    )
    figure.suptitle(scenario["title"])
    for (left, right), (title, curves) in zip(rows, peers.items(), strict=True):
        _shares(left, curves)
        _first_tokens(right, curves)
        left.set_title(title, loc="left", fontsize=8, fontweight="bold")
    rows[0][1].set_title("first token, s (red: the limit)", loc="left", fontsize=8)
    rows[-1][0].set_xlabel("seconds")
    rows[-1][1].set_xlabel("submitted at second")
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    rows[0][1].legend(loc="upper right", ncols=3, frameon=False, fontsize=7)
    return figure


def _shares(axes: Any, curves: dict[str, Any]) -> None:
    load = curves["load"]
    seconds = [second + 0.5 for second in range(len(load))]
    engines = (curves["engine_a"], curves["engine_b"])
    axes.stackplot(seconds, *engines, labels=("engine A", "engine B"), colors=(_A, _B), lw=0)
    axes.plot(seconds, curves["goodput"], color=_USEFUL, lw=1.4, label="useful to somebody")
    axes.step(seconds, load, where="mid", color=_LOAD, lw=0.8, ls="--", label="offered")
    axes.set_ylim(0, 1.3)
    axes.set_yticks((0, 0.5, 1))
    axes.set_xlim(0, len(load))


def _first_tokens(axes: Any, curves: dict[str, Any]) -> None:
    for percentile, width, style in ((50, 1.4, "-"), (95, 1.0, "--"), (99, 0.8, ":")):
        waits = curves[f"first_token_p{percentile}_s"]
        width_s = len(curves["load"]) / max(1, len(waits))
        points = [(i + 0.5) * width_s for i in range(len(waits))]
        shown = [float("nan") if wait is None else wait for wait in waits]
        axes.plot(points, shown, color=_USEFUL, lw=width, ls=style, label=f"p{percentile}")
    axes.axhline(_LIMIT_S, color="#cb181d", lw=0.8)
    axes.set_ylim(0, _FIRST_TOKEN_MAX_S)


def _undated(kind: str) -> dict[str, Any]:
    """No dates in the files, so that the same numbers give the same picture."""
    return {"Date": None} if kind == "svg" else {"Software": None}


if __name__ == "__main__":
    main()

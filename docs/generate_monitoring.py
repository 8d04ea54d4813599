"""Writes deploy/monitoring, and its part of docs/monitoring.md, from monitoring/: `./run docs`.

With `--check` it only compares. Rule: nothing in that folder is written by hand; a file there that
is not generated is stale.
"""

from __future__ import annotations

import pathlib

from docs import generated
from monitoring.alerts import ALERTS
from monitoring.files import BOARDS, all_files

ROOT = generated.ROOT
FOLDER = ROOT / "deploy/monitoring"
PAGE = ROOT / "docs/monitoring.md"
BEGIN = "<!-- Generated from monitoring/ by `./run docs`: change it there. -->"
END = "<!-- End of the generated part. -->"


def page(text: str) -> str:
    """The page with its generated part renewed."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{PAGE.name} has lost the marks of its generated part")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def tables() -> str:
    """What there is: dashboards, alerts."""
    lines = ["## The dashboards", "", "| dashboard | what it answers |", "|---|---|"]
    for board in BOARDS:
        link = f"../deploy/monitoring/grafana/dashboards/{board.uid}.json"
        lines.append(f"| [{board.title}]({link}) | {board.about} |")
    lines += [
        "",
        "## The alerts",
        "",
        "| alert | severity | what is so | look at |",
        "|---|---|---|---|",
    ]
    titles = {board.uid: board.title for board in BOARDS}
    for alert in ALERTS:
        name = f"[{alert.name}](runbooks/{alert.name}.md)"
        about = alert.expr.plain(alert.description)
        lines.append(f"| {name} | {alert.severity} | {about} | {titles[alert.dashboard]} |")
    return "\n".join([*lines, ""])


def files() -> generated.Files:
    """What is generated."""
    texts = {FOLDER / name: text for name, text in all_files().items()}
    return {**texts, PAGE: page(PAGE.read_text())}


if __name__ == "__main__":
    raise SystemExit(generated.main(files, filter(pathlib.Path.is_file, FOLDER.rglob("*"))))

"""Writes deploy/monitoring, and its part of docs/monitoring.md, from monitoring/: `./run docs`.

With `--check` it only compares. Rule: nothing in that folder is written by hand; a file there that
is not generated is stale.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from monitoring.alerts import ALERTS
from monitoring.files import BOARDS, all_files

ROOT = pathlib.Path(__file__).parents[1]
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


def main() -> int:
    """Exit 0 when the files are written or fresh, 1 when one is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check: bool = parser.parse_args().check
    texts = {FOLDER / name: text for name, text in all_files().items()}
    texts[PAGE] = page(PAGE.read_text())
    there = {path for path in FOLDER.rglob("*") if path.is_file()} | {PAGE}
    same = {path for path in there & set(texts) if path.read_text() == texts[path]}
    stale = (there | set(texts)) - same
    if check:
        for path in sorted(stale):
            sys.stderr.write(f"{path.relative_to(ROOT)}: stale, run ./run docs\n")
        return int(bool(stale))
    for path in there - set(texts):
        path.unlink()
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

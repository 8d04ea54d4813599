"""Writes the generated parts of docs/steering.md: `./run docs` (write) or `./run docs --check`.

Rule: the diagram and the list of causes come from the breaker's own table in
trimtab/policy/breaker.py; the rest of the page is written by hand, between the marks.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections import defaultdict

from trimtab.policy.breaker import TABLE, Cause

PAGE = pathlib.Path(__file__).with_name("steering.md")
BEGIN = "<!-- Generated from trimtab/policy/breaker.py by `./run docs`: change it there. -->"
END = "<!-- End of the generated part. -->"


def generated() -> str:
    """Diagram and list."""
    return f"{BEGIN}\n\n{diagram()}\n\n{causes()}\n\n{END}"


def diagram() -> str:
    """The machine as Mermaid draws it; one arrow for all causes of the same move."""
    arrows: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for state, row in TABLE.items():
        for cause, target in row:
            arrows[state.name, target.name].append(_name(cause))
    lines = [f"    {a} --> {b} : {', '.join(names)}" for (a, b), names in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> JOINING", *lines, "```"])


def causes() -> str:
    """What each cause means; `ctl` and the log show the same words."""
    lines = ["| cause | in words | moves |", "|---|---|---|"]
    for cause in Cause:
        states = [state.name for state, row in TABLE.items() if cause in dict(row)]
        targets = {target.name for row in TABLE.values() for each, target in row if each is cause}
        moves = f"{', '.join(states)} → {', '.join(sorted(targets))}"
        lines.append(f"| {_name(cause)} | {cause.value} | {moves} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its generated part renewed."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{PAGE.name} has lost the marks of its generated part")
    return before + generated() + after


def _name(cause: Cause) -> str:
    return cause.name.lower().replace("_", " ")


def main() -> int:
    """Exit 0 when the page is written or fresh, 1 when it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check: bool = parser.parse_args().check
    text = PAGE.read_text()
    fresh = page(text)
    if not check:
        PAGE.write_text(fresh)
    elif text != fresh:
        sys.stderr.write("docs/steering.md: stale, run ./run docs\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

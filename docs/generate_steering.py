"""Writes the generated parts of docs/steering.md: `./run docs` (write) or `./run docs --check`.

Rule: the diagram and the list of causes come from the breaker's own table in
trimtab/policy/breaker.py; the rest of the page is written by hand, between the marks.
"""

from __future__ import annotations

from collections import defaultdict

from docs import generated
from trimtab.policy.breaker import TABLE, Cause

PAGE = generated.ROOT / "docs/steering.md"
BEGIN = "<!-- Generated from trimtab/policy/breaker.py by `./run docs`: change it there. -->"
END = "<!-- End of the generated part. -->"


def tables() -> str:
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
    return before + tables() + after


def _name(cause: Cause) -> str:
    return cause.name.lower().replace("_", " ")


if __name__ == "__main__":
    raise SystemExit(generated.main(lambda: {PAGE: page(PAGE.read_text())}))

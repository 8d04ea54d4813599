"""Writes the generated parts of docs/api.md: `./run docs` (write) or `./run docs --check`.

Rule: the paths come from the table that serves them, edge/core/surface.py, and the fields from
edge/core/openai.py; the rest of the page is written by hand, around the marks.
"""

from __future__ import annotations

import itertools
import re

from docs import generated
from edge.core import openai, surface
from edge.core.surface import Entry

PAGE = generated.ROOT / "docs/api.md"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
DIALECTS = {"OPENAI": "OpenAI", "RESPONSES": "OpenAI Responses", "ANTHROPIC": "Anthropic"}
COSTS = {
    "NOTHING": "answered by the edge",
    "CHEAP": "no queue, no slot",
    "PASS": "a slot for one pass over the prompt",
    "ANSWER": "a slot for the answer",
}
MODELS = {
    "NOWHERE": "",
    "JSON": "`model` in the body",
    "FORM": "`model`, a field of the form",
    "SOCKET": "`?model=`, or the first `session.update`",
    "ID": "the replica's that made the id",
}


def paths() -> str:
    """What is served; neighbours that differ in nothing but their path share a row."""
    lines = ["| | dialect | model | streams | costs |", "|---|---|---|---|---|"]
    for cells, entries in itertools.groupby(surface.TABLE, _cells):
        shown = ", ".join(f"`{'/'.join(entry.methods)} {entry.path}`" for entry in entries)
        lines.append(f"| {' | '.join((shown, *cells))} |")
    return "\n".join(lines)


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        "any, no key" if entry.open else DIALECTS[entry.dialect.name],
        MODELS[entry.model.name],
        "yes" if entry.streams else "",
        COSTS[entry.cost.name],
    )


def denied() -> str:
    """What nobody gets to."""
    return ", ".join(f"`{path}`" for path in sorted(surface.NEVER))


def owned() -> str:
    """Fields that are taken out of bodies."""
    return ", ".join(f"`{name}`" for name in openai.PRIVILEGED_FIELDS)


PARTS = {"paths": paths, "denied": denied, "owned": owned}


def page(text: str) -> str:
    """The page with its generated parts renewed."""
    found = [name for _, name, _ in PART.findall(text)]
    if sorted(found) != sorted(PARTS):
        raise ValueError(f"{PAGE.name} has parts {found}, it must have each of {[*PARTS]} once")
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}\n{part[3]}", text)


if __name__ == "__main__":
    raise SystemExit(generated.main(lambda: {PAGE: page(PAGE.read_text())}))

"""What can be asked for by name; singular, plural and short forms mean the same."""

from __future__ import annotations

import difflib

NOUNS: dict[str, tuple[str, ...]] = {
    "replicas": ("replica", "re"),
    "edges": ("edge", "ed"),
    "agents": ("agent", "ag", "node", "nodes"),
    "pools": ("pool", "po", "model", "models", "mo"),
}


def find(word: str) -> str | None:
    """The noun that a word means; None when it means none."""
    for noun, others in NOUNS.items():
        if word.lower() in (noun, *others):
            return noun
    return None


def closest(word: str, known: list[str]) -> str:
    """A question that names the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, known, n=1)
    return f' Did you mean "{near[0]}"?' if near else ""

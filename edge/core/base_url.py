"""A wrong base_url is what most people who can't connect have: say how it should end.

Rules: nothing is redirected, because clients do not follow, or drop the body or the key; the hint
is given only when the path would be right with another base_url.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SLASHES = re.compile(r"/{2,}")
_VERSIONS = re.compile(r"^(?:/v1)+(?=/)")


def hint(path: str, served: Iterable[str]) -> str:
    """What to change, as a sentence with a blank before it; empty if that would not help.

    `served` as people read it: "POST /v1/x", "GET /v1/y/{id}".
    """
    known = [each.rpartition(" ")[2] for each in served]
    plain = _SLASHES.sub("/", path).rstrip("/")
    once = _VERSIONS.sub("/v1", plain)
    meant = next((each for each in (once, f"/v1{once}") if _serves(known, each)), path)
    if meant == path:
        return ""
    if meant.startswith("/v1/messages") and plain != meant:
        return f" You mean {meant}: your base_url should end before /v1."
    return f" You mean {meant}: your base_url should end in /v1 once, without a slash too many."


def _serves(known: list[str], path: str) -> bool:
    stems = [each.partition("{")[0] if "{" in each else "" for each in known]
    return path in known or any(stem and path.startswith(stem) for stem in stems)

"""Pages of other origins that may call the edge: none, unless the configuration lists them.

Rules: an origin is allowed by its exact text; a preflight needs no key, for browsers send none;
a caller of no origin, or of another one, sees nothing of all this, and a browser then refuses by
itself. No credentials mode: keys travel in a header that the page sets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from edge.core import headers

METHODS = "GET, POST"
MAX_AGE_S = 600
EXPOSED = ", ".join(
    name
    for names in (
        *(headers.ON_EVERY_ANSWER, headers.ON_TRACED_ANSWERS),
        *(headers.ON_ROUTED_ANSWERS, headers.ON_REFUSALS),
    )
    for name in names
    if name not in {"server", "date", "www-authenticate"}
)
_NAMES = re.compile(r"[\w-]+(?:[ \t]*,[ \t]*[\w-]+){0,63}", re.ASCII)


def on_answers(origins: Collection[str], caller: Mapping[str, str]) -> dict[str, str]:
    """For every answer, so that a page may read it and caches keep origins apart."""
    if not origins:
        return {}
    origin = caller.get("origin", "")
    if origin not in origins:
        return {"vary": "origin"}
    return {
        "vary": "origin",
        "access-control-allow-origin": origin,
        "access-control-expose-headers": EXPOSED,
    }


def preflight(
    origins: Collection[str], method: str, caller: Mapping[str, str]
) -> dict[str, str] | None:
    """What a browser's question in advance is answered with; None if it is none of ours."""
    if method != "OPTIONS" or caller.get("origin", "") not in origins:
        return None
    if "access-control-request-method" not in caller:
        return None
    granted = {"access-control-allow-methods": METHODS, "access-control-max-age": str(MAX_AGE_S)}
    wanted = caller.get("access-control-request-headers", "")
    # SDKs in browsers send a dozen of their own; what they say changes nothing
    if _NAMES.fullmatch(wanted):
        granted["access-control-allow-headers"] = wanted
    return granted

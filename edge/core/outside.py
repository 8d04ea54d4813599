"""Which requests may leave the fleet, when it would refuse them.

Rules: only of keys that say so, only in pools that say where to, and only because the fleet has no
room or no replica in time: an error of the request's own is the same everywhere, and a failure is
ours to show. Only what any OpenAI-compatible API understands, and only while nothing of an answer
has been seen: another model can't go on with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from edge.core import surface
from edge.core.openai import Call
from edge.core.problems import Problem

REFUSALS = frozenset({"server_is_overloaded", "no_replica_available"})


@dataclass(frozen=True, slots=True)
class Target:
    """An API elsewhere; `url` is its base URL as its clients have it."""

    url: str
    model: str
    max_requests: int
    key: str = field(repr=False)


def may_leave(call: Call, problem: Problem, *, allowed: bool, started: bool) -> bool:
    """Whether a request that the fleet refuses so may be asked elsewhere."""
    refused = problem.code in REFUSALS and not started
    return allowed and refused and call.path in {surface.CHAT, surface.TEXT}


def elsewhere(call: Call) -> Call:
    """The call as its new address has it: its base URL has the version in it, it needs a name for
    the model, and nobody there counts usage for us."""
    path = call.path.removeprefix("/v1")
    return msgspec.structs.replace(call, path=path, model=call.model or "", add_usage=b"")

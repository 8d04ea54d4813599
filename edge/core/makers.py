"""Which replica made which response: its id says so, to every edge and worker that knows the fleet.

vLLM keeps a response in the memory of the replica that made it, under the id that we ask it to use.
Rules: an id is a number drawn by lot and two marks, hashes of it with the tenant and the replica's
name, and with the tenant and the model's; nothing is remembered. A response is nobody's business
but its tenant's: another's marks do not fit, and whoever changes them has an id that no engine has.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from edge.core import problems
from edge.core.problems import Problem
from trimtab.model import Route

LOT_BYTES = 8
_ID = re.compile(r"resp_([0-9a-f]{16})([0-9a-f]{8})([0-9a-f]{8})")


def new_id(lot: bytes, tenant: str, replica: str, model: str) -> str:
    """The id of a response that this replica is to make; `model` as its caller calls it."""
    drawn = lot.hex()
    return f"resp_{drawn}{_mark(drawn, tenant, replica)}{_mark(drawn, tenant, model)}"


def find(
    response_id: str, tenant: str, routes: Iterable[Route], models: Iterable[str]
) -> tuple[Route, str] | Problem:
    """Which of these replicas made it, and which of these names its caller used, empty if none."""
    if match := _ID.fullmatch(response_id):
        drawn, by, called = match.groups()
        for route in routes:
            if _mark(drawn, tenant, route.replica) == by:
                names = (name for name in models if _mark(drawn, tenant, name) == called)
                return route, next(names, "")
    return problems.unknown_response(response_id)


def _mark(drawn: str, tenant: str, name: str) -> str:
    said = f"{drawn}\0{tenant}\0{name}".encode(errors="surrogatepass")
    return hashlib.blake2b(said, digest_size=4).hexdigest()

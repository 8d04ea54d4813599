"""Which replica made which response: vLLM keeps a response in the memory of the one that made it.

Rules: bounded, the oldest falls out; a note lasts KEPT_S after it was made; a response is nobody's
business but its tenant's. Nothing is written into ids: each edge knows the responses it relayed
itself, and after a restart none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from edge.core import problems
from edge.core.problems import Problem
from trimtab.model import Route

KEPT_S = 6 * 3_600.0
NOTES_MAX = 32_768


class Maker(NamedTuple):
    """Who has a response, whose it is, and under which name of the model he asked for it."""

    tenant: str
    replica: str
    model: str
    made_s: float


class Makers:
    """The notes of one edge."""

    def __init__(self) -> None:
        self._notes: OrderedDict[str, Maker] = OrderedDict()

    def note(self, response_id: str, maker: Maker) -> None:
        """A replica has begun this response."""
        self._notes[response_id] = maker
        self._notes.move_to_end(response_id)
        if len(self._notes) > NOTES_MAX:
            self._notes.popitem(last=False)

    def find(
        self, response_id: str, tenant: str, routes: Sequence[Route], now_s: float
    ) -> tuple[Route, str] | Problem:
        """Which of these has it, and the model's name; where there is but one, it may say no."""
        maker = self._notes.get(response_id)
        if maker is not None and maker.tenant != tenant:
            return problems.unknown_response(response_id)
        if maker is not None and now_s - maker.made_s < KEPT_S:
            for route in routes:
                if route.replica == maker.replica:
                    return route, maker.model
        return (routes[0], "") if len(routes) == 1 else problems.unknown_response(response_id)

"""What every answer of the edge has in common: its id, and headers that say how it came about.

Rules: a whole answer gets them when its handler is done, a stream when its status goes out, so
both say what is known then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from edge.core import cors, envelopes, headers
from edge.core.headers import Journey
from edge.core.problems import Problem
from edge.core.surface import Dialect
from edge.http.request import Request
from edge.http.response import Response
from trimtab.runtime import clock


@dataclass(frozen=True, slots=True)
class AnswerHeaders:
    """What operators decide about them."""

    shows_route: bool = True
    cors_origins: frozenset[str] = frozenset()

    def begin(self, request: Request, dialect: Dialect) -> Journey:
        """A request has come."""
        request_id = new_request_id()
        fixed = cors.on_answers(self.cors_origins, request.headers)
        fixed |= envelopes.ids(dialect, request_id)
        request.journey = Journey(request_id, clock.now_s(), self.shows_route, fixed)
        journey = request.journey
        journey.trace_id = headers.trace_id(request.headers)
        journey.caller_id = headers.caller_id(request.headers)
        return journey

    def preflight(self, request: Request) -> Response | None:
        """The answer to a browser that asks for a page of an allowed origin."""
        granted = cors.preflight(self.cors_origins, request.method, request.headers)
        return None if granted is None else Response(204, headers=granted)


def complete(journey: Journey, response: Response) -> None:
    """Put the common headers on; before the status goes out."""
    response.headers.update(journey.headers(clock.now_s()))


def respond(problem: Problem, request_id: str, dialect: Dialect = Dialect.OPENAI) -> Response:
    """A problem as a whole answer."""
    return Response(
        envelopes.status(problem, dialect),
        envelopes.body(problem, dialect, request_id),
        problem.headers(request_id),
        code=problem.code,
    )


def refuse(problem: Problem) -> Response:
    """The answer to what never became a request."""
    request_id = new_request_id()
    response = respond(problem, request_id)
    response.headers.update(Journey(request_id).headers(0.0))
    return response


def new_request_id() -> str:
    """An id for one request, unique over the fleet."""
    return f"req_{os.urandom(16).hex()}"

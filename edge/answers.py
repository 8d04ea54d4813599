"""What every answer of the edge has in common: its id, and headers that say how it came about.

Rules: a whole answer gets them when its handler is done, a stream when its status goes out, so
both say what is known then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from aiohttp import web

from edge.core import cors, envelopes
from edge.core.headers import Journey
from edge.core.problems import Problem
from edge.core.surface import Dialect
from trimtab.runtime import clock

JOURNEY = web.RequestKey("journey", Journey)


@dataclass(frozen=True, slots=True)
class AnswerHeaders:
    """What operators decide about them."""

    shows_route: bool = True
    cors_origins: frozenset[str] = frozenset()

    def begin(self, request: web.BaseRequest, dialect: Dialect) -> Journey:
        """A request has come."""
        request_id = new_request_id()
        fixed = cors.on_answers(self.cors_origins, request.headers)
        fixed |= envelopes.ids(dialect, request_id)
        journey = Journey(request_id, clock.now_s(), self.shows_route, fixed)
        request[JOURNEY] = journey
        return journey

    def preflight(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a browser that asks for a page of an allowed origin."""
        granted = cors.preflight(self.cors_origins, request.method, request.headers)
        return None if granted is None else web.Response(status=204, headers=granted)


def complete(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Put the common headers on; before the status goes out."""
    response.headers.update(request[JOURNEY].headers(clock.now_s()))
    body = request.content
    # a caller that was refused before 100 Continue may send its body or not: nobody can tell
    if body.exception() is not None or ("expect" in request.headers and not body.is_eof()):
        response.force_close()


def respond(problem: Problem, request_id: str, dialect: Dialect = Dialect.OPENAI) -> web.Response:
    """A problem as a whole answer."""
    response = web.Response(
        status=envelopes.status(problem, dialect),
        body=envelopes.body(problem, dialect, request_id),
        headers=problem.headers(request_id),
    )
    if problem.status == 408:
        response.force_close()  # what is left of its body would be read as the next request
    return response


def new_request_id() -> str:
    """An id for one request, unique over the fleet."""
    return f"req_{os.urandom(16).hex()}"

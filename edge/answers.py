"""What every answer of the edge has in common: its id, and headers that say how it came about.

Rules: a whole answer gets them when its handler is done, a stream when its status goes out, so
both say what is known then.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from aiohttp import web

from edge.core import cors
from edge.core.headers import Journey
from edge.core.problems import Problem
from trimtab.runtime import clock

JOURNEY = web.RequestKey("journey", Journey)


@dataclass(frozen=True, slots=True)
class AnswerHeaders:
    """What operators decide about them."""

    shows_route: bool = True
    cors_origins: frozenset[str] = frozenset()

    def begin(self, request: web.BaseRequest) -> Journey:
        """A request has come."""
        fixed = cors.on_answers(self.cors_origins, request.headers)
        journey = Journey(new_request_id(), clock.now_s(), self.shows_route, fixed)
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


def respond(problem: Problem, request_id: str) -> web.Response:
    """A problem as a whole answer."""
    headers = problem.headers(request_id)
    response = web.Response(status=problem.status, body=problem.body(), headers=headers)
    if problem.status == 408:
        response.force_close()  # what is left of its body would be read as the next request
    return response


def new_request_id() -> str:
    """An id for one request, unique over the fleet."""
    return f"req_{uuid.uuid4().hex}"

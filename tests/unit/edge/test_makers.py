"""edge/core/makers: a response is asked for where it was made, by whom it was made for."""

from __future__ import annotations

import pytest

from edge.core.makers import KEPT_S, NOTES_MAX, Maker, Makers
from edge.core.problems import Problem
from trimtab.model import Route

ROUTES = tuple(Route(name, "m", "node", f"http://{name}", "served") for name in ("r0", "r1"))


def makers() -> Makers:
    known = Makers()
    known.note("resp_1", Maker("tenant", "r1", "public", 0.0))
    return known


def test_where_it_was_made() -> None:
    assert makers().find("resp_1", "tenant", ROUTES, KEPT_S - 1) == (ROUTES[1], "public")


@pytest.mark.parametrize(
    ("response_id", "tenant", "routes", "now_s"),
    [
        ("resp_2", "tenant", ROUTES, 0.0),
        ("resp_1", "other", ROUTES, 0.0),
        ("resp_1", "other", ROUTES[1:], 0.0),
        ("resp_1", "tenant", ROUTES, KEPT_S),
        ("resp_1", "tenant", ROUTES[:1] * 2, 0.0),
    ],
    ids=["never heard of", "another's", "another's on the only one", "too old", "replica is gone"],
)
def test_unknown(response_id: str, tenant: str, routes: tuple[Route, ...], now_s: float) -> None:
    problem = makers().find(response_id, tenant, routes, now_s)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.code) == (404, "response_not_found")


def test_the_only_replica_may_say_no_itself() -> None:
    assert makers().find("resp_2", "tenant", ROUTES[:1], 0.0) == (ROUTES[0], "")


def test_bounded() -> None:
    known = makers()
    for number in range(NOTES_MAX):
        known.note(f"resp_x{number}", Maker("tenant", "r0", "m", 0.0))
    assert isinstance(known.find("resp_1", "tenant", ROUTES, 0.0), Problem)
    assert known.find("resp_x0", "tenant", ROUTES, 0.0) == (ROUTES[0], "m")

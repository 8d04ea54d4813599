"""edge/core/makers: a response is asked for where it was made, by whom it was made for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import makers
from edge.core.problems import Problem
from trimtab.model import Route

ROUTES = tuple(Route(name, "m", "node", f"http://{name}", "served") for name in ("r0", "r1"))
LOT = bytes(range(8))
ID = makers.new_id(LOT, "tenant", "r1", "public")


def test_it_looks_like_an_engines_own() -> None:
    assert ID.startswith("resp_0001020304050607")
    assert len(ID) == len("resp_") + 32


@given(st.binary(min_size=8, max_size=8), st.text(), st.text())
def test_who_made_it_and_what_it_was_called(lot: bytes, tenant: str, model: str) -> None:
    made = makers.new_id(lot, tenant, "r1", model)
    assert makers.find(made, tenant, ROUTES, ("other", model)) == (ROUTES[1], model)


def test_a_name_that_is_gone_is_none() -> None:
    assert makers.find(ID, "tenant", ROUTES, ("other",)) == (ROUTES[1], "")


@pytest.mark.parametrize(
    ("response_id", "tenant", "routes"),
    [
        ("resp_nobody", "tenant", ROUTES),
        ("resp_" + "0" * 32, "tenant", ROUTES),
        (ID, "other", ROUTES),
        (ID, "other", ROUTES[1:]),
        (ID, "tenant", ROUTES[:1]),
        (ID[:-1] + "z", "tenant", ROUTES),
        (ID + "\n", "tenant", ROUTES),
    ],
    ids=["no id", "an engine's", "another's", "another's, one left", "gone", "bent", "longer"],
)
def test_unknown(response_id: str, tenant: str, routes: tuple[Route, ...]) -> None:
    problem = makers.find(response_id, tenant, routes, ("public",))
    assert isinstance(problem, Problem)
    assert (problem.status, problem.code) == (404, "response_not_found")

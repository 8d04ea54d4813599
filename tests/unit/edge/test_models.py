"""edge/core/models: what a name means, for whom it exists, and how it is listed."""

from __future__ import annotations

import pytest

from edge.core import models
from edge.core.models import Target
from edge.core.problems import Problem
from trimtab.model import ApiKey, Pool, Route, Snapshot

BIG, SMALL = Pool("big", ("gpt-4o", "default")), Pool("small")
ROUTES = (
    Route("a", "big", "n", "u", "big", max_model_len_tokens=8192, adapters=("sql",)),
    Route("b", "big", "n", "u", "big", max_model_len_tokens=4096, adapters=("sql", "de")),
    Route("c", "small", "n", "u", "small", adapters=("sql", "fr", "default", "big")),
)
KNOWN = models.targets(Snapshot((BIG, SMALL), ROUTES))
ANYBODY = ApiKey(b"k")


def code(found: Target | Problem) -> str:
    assert isinstance(found, Problem)
    return found.code


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("big", Target("big", BIG)),
        ("gpt-4o", Target("gpt-4o", BIG)),
        ("default", Target("default", BIG)),
        ("small", Target("small", SMALL)),
        ("de", Target("de", BIG, "de")),
        ("fr", Target("fr", SMALL, "fr")),
        ("sql", Target("sql", BIG, "sql")),
    ],
)
def test_a_name_means_one_thing(name: str, expected: Target) -> None:
    assert models.find(KNOWN, ANYBODY, name) == expected


def test_names_are_listed_pools_first() -> None:
    names = [target.name for target in models.visible(KNOWN, ANYBODY)]
    assert names == ["big", "small", "gpt-4o", "default", "de", "sql", "fr"]


def test_what_is_not_there_is_told_with_what_is() -> None:
    found = models.find(KNOWN, ANYBODY, "smal")
    assert code(found) == "model_not_found"
    assert isinstance(found, Problem)
    assert "Did you mean 'small'?" in found.message
    assert "big, de, default, fr, gpt-4o, small, sql" in found.message


def test_what_a_key_may_not_ask_for_does_not_exist_for_it() -> None:
    scoped = ApiKey(b"k", models=("small", "de", "gone"))
    assert [target.name for target in models.visible(KNOWN, scoped)] == ["small", "de"]
    assert models.find(KNOWN, scoped, "de") == Target("de", BIG, "de")
    for name in ("big", "gpt-4o", "sql", "nope", "gone"):
        found = models.find(KNOWN, scoped, name)
        assert code(found) == "model_not_found"
        assert isinstance(found, Problem)
        assert found.message.endswith("Models served: de, small.")


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ((), "missing_required_parameter"),
        (("small", "fr"), Target("small", SMALL)),
        (("gpt-4o", "default"), Target("gpt-4o", BIG)),
        (("big", "small"), "missing_required_parameter"),
        (("de",), "missing_required_parameter"),
        (("nope",), "missing_required_parameter"),
    ],
)
def test_no_name_means_the_only_pool(allowed: tuple[str, ...], expected: Target | str) -> None:
    found = models.find(KNOWN, ApiKey(b"k", models=allowed), None)
    assert (found if isinstance(expected, Target) else code(found)) == expected


@pytest.mark.parametrize(
    ("name", "root", "parent", "length"),
    [
        ("big", "big", None, 4096),
        ("gpt-4o", "big", None, 4096),
        ("de", "de", "big", 4096),
        ("small", "small", None, None),
    ],
)
def test_cards(name: str, root: str, parent: str | None, length: int | None) -> None:
    target = KNOWN[name]
    routes = [route for route in ROUTES if route.pool == target.pool.name]
    listed = models.card(target, routes, 7)
    assert (listed["id"], listed["root"], listed["parent"]) == (name, root, parent)
    assert listed.get("max_model_len") == length
    assert listed["created"] == 7

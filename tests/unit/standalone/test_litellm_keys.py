"""LiteLLM's keys, from its database: what goes on working, and what is said of the rest."""

from __future__ import annotations

import pathlib

import pytest

from standalone import litellm_keys
from trimtab.runtime import config as file
from trimtab.runtime.service import ConfigError

A, B = "a" * 64, "b" * 64
HEAD = "token,key_name,key_alias,models,expires,blocked,team_id,max_budget\n"


def read(
    tmp_path: pathlib.Path, rows: str, *known: file.Key
) -> tuple[tuple[file.Key, ...], dict[str, str]]:
    """The keys of these rows, and what was said of what."""
    path = tmp_path / "keys.csv"
    path.write_text(rows)
    keys, lines = litellm_keys.read(path, known)
    return keys, dict(lines)


@pytest.mark.parametrize(
    ("row", "key"),
    [
        (f"{A},sk-...x,imaging,{{}},,,,", file.Key("imaging", sha256=A)),
        (f"{A},sk-...x,,{{}},,f,,", file.Key("sk-...x", sha256=A)),
        (f"{A},,,,,,,", file.Key("key-aaaaaaaa", sha256=A)),
        (f"{A},,k,{{m}},,,,", file.Key("k", sha256=A, models=("m",))),
        (f'{A},,k,"{{m,""b c""}}",,,,', file.Key("k", sha256=A, models=("m", "b c"))),
        (f"{A},,k,{{all-proxy-models}},,,,", file.Key("k", sha256=A)),
        (
            f"{A},,k,,2027-03-31 18:00:00.5,,,",
            file.Key("k", sha256=A, expires="2027-03-31T18:00:00.500000+00:00"),
        ),
    ],
)
def test_a_key_goes_on_working(tmp_path: pathlib.Path, row: str, key: file.Key) -> None:
    assert read(tmp_path, HEAD + row)[0] == (key,)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (f"{A},,k,,,t,,", "it is blocked"),
        (f"{A},,k,{{all-team-models}},,,,", "its models are all-team-models"),
        ("sk-plain,,k,,,,,", "its token is no SHA-256"),
    ],
)
def test_a_key_is_left_out_with_a_reason(tmp_path: pathlib.Path, row: str, words: str) -> None:
    keys, lines = read(tmp_path, HEAD + row)
    assert keys == ()
    assert words in lines["key k"]
    assert "sk-plain" not in str(lines)


def test_limits_and_teams_are_said_once(tmp_path: pathlib.Path) -> None:
    _, lines = read(tmp_path, f"{HEAD}{A},,k,,,,t1,10\n{B},,k,{{m}},,,t1,5")
    assert "no budgets" in lines["max_budget of 2 keys"]
    assert "may ask for all" in lines["team_id of 1 keys"]
    assert lines["2 keys of keys.csv"] == "keys: 2, by their hashes"


def test_names_and_hashes_stay_unique(tmp_path: pathlib.Path) -> None:
    known = file.Key("master", sha256=B)
    keys, _ = read(tmp_path, f"{HEAD}{A},,master,,,,,\n{B},,x,,,,,\n{A},,y,,,,,", known)
    assert keys == (file.Key("master-2", sha256=A),)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", f"{HEAD}"])
def test_another_table_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    with pytest.raises(ConfigError, match="no column token"):
        read(tmp_path, text)


def test_a_time_that_is_none_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="no time like"):
        read(tmp_path, f"{HEAD}{A},,k,,soon,,,")

"""Flags over the file, and what the children get to read."""

from __future__ import annotations

import pathlib

import msgspec
import pytest

from standalone.config import Flags, Plan, default_state_dir, effective, plan, sha256, with_page
from standalone.serving import Wish
from trimtab.runtime import config as file
from trimtab.runtime.service import ConfigError

FILE = """
listen: 127.0.0.1:5000
state_dir: /s
pools:
  - {name: m, engines: [{url: 'http://a:1'}]}
engines:
  - url: http://b:1
keys:
  - {name: imaging, key: {env: IMAGING_KEY}, models: [m], fallback: true}
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """A configuration file."""
    made = tmp_path / "t.yaml"
    made.write_text(FILE)
    return made


def test_without_anything_the_defaults_hold() -> None:
    made = plan(Flags(), {"XDG_STATE_HOME": "/x"})
    assert (made.base.listen, made.base.admin) == ("127.0.0.1:4000", "127.0.0.1:4001")
    assert (made.state_dir, made.is_default_state) == (pathlib.Path("/x/trimtab"), True)
    assert made.engines == ()


def test_the_state_directory_is_below_home_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    assert default_state_dir({}) == pathlib.Path("/home/a/.local/state/trimtab")


def test_flags_beat_the_file_and_add_engines(path: pathlib.Path) -> None:
    given = Flags(
        engines=("http://b:1/", "http://c:1", "http://c:1", "http://a:1"),
        listen="127.0.0.1:6000",
        config=path,
        state=pathlib.Path("rel"),
    )
    made = plan(given, {})
    assert made.base.listen == "127.0.0.1:6000"
    assert made.state_dir == pathlib.Path.cwd() / "rel"
    assert [engine.url for engine in made.engines] == ["http://a:1", "http://b:1", "http://c:1"]
    kept = plan(Flags(config=path), {})
    assert (kept.base.listen, kept.state_dir) == ("127.0.0.1:5000", pathlib.Path("/s"))


MISTAKES = {
    Flags(engines=("http:/h:1",)): '--engine "http:/h:1" is not a URL .*did you mean "http://h:1"',
    Flags(engines=("",)): "--engine .* is not a URL",
    Flags(listen=":5000"): '--listen ":5000" is not HOST:PORT .*"127.0.0.1:5000"',
    Flags(admin="x"): "--admin .* is not HOST:PORT",
    Flags(key="short"): "--key: at least 8 visible ASCII",
    Flags(key="with space in it"): "--key: at least 8 visible ASCII",
    Flags(key="quote'quote"): "--key: at least 8 visible ASCII",
    Flags(demo=True, engines=("http://h:1",)): "--demo brings its own engines",
    Flags(listen="127.0.0.1:4001"): "both be at 127.0.0.1:4001",
    Flags(config=pathlib.Path("/none.yaml")): "cannot read /none.yaml",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_what_cannot_be_done_is_said(flags: Flags) -> None:
    with pytest.raises(ConfigError, match=MISTAKES[flags]):
        plan(flags, {})


def test_the_engines_key_comes_from_the_file_or_the_environment(tmp_path: pathlib.Path) -> None:
    secret, path = tmp_path / "up", tmp_path / "t.yaml"
    secret.write_text("sk-file\n")
    path.write_text(f"upstream_key: {{file: {secret}}}")
    environ = {"TRIMTAB_UPSTREAM_KEY": "sk-env"}
    assert plan(Flags(), environ).upstream_key == "sk-env"
    assert plan(Flags(config=path), environ).upstream_key == "sk-file"


def test_the_page_is_beside_the_edges_own_unless_the_file_says_where(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("edge: {workers: 2}\n")
    made = with_page(plan(Flags(config=path, admin="127.0.0.1:5001"), {}), lambda first: first + 4)
    assert made.base.controlplane_metrics == "127.0.0.1:5007"
    path.write_text("controlplane_metrics: 127.0.0.1:4444\n")
    kept = with_page(plan(Flags(config=path), {}), lambda _: 1)
    assert kept.base.controlplane_metrics == "127.0.0.1:4444"


def test_children_read_hashes_only(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGING_KEY", "sk-imaging")
    made = effective(plan(Flags(config=path), {}), "unix:/s/c", [], "sk-printed")
    assert [(key.name, key.sha256, key.models, key.fallback) for key in made.keys] == [
        ("imaging", sha256("sk-imaging"), ("m",), True),
        ("trimtab-up", sha256("sk-printed"), None, False),
    ]
    text = msgspec.json.encode(made).decode()
    assert "sk-" not in text
    assert file.parse(text, "trimtab.json") == made
    assert (made.controlplane, made.state_dir) == ("unix:/s/c", "/s")


@pytest.mark.parametrize("key", ["", "sk-imaging"])
def test_no_key_is_added_that_is_there(
    key: str, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGING_KEY", "sk-imaging")
    made = effective(plan(Flags(config=path), {}), "unix:/s/c", [], key)
    assert [entry.name for entry in made.keys] == ["imaging"]


def test_found_engines_join_those_of_the_file() -> None:
    base = Plan(file.Config(engines=(file.Engine(url="http://a:1"),)), pathlib.Path("/s"), True)
    made = effective(base, "unix:/s/c", [file.Engine(url="http://b:1")], "k")
    assert [engine.url for engine in made.engines] == ["http://a:1", "http://b:1"]


def test_engines_to_serve_are_the_pool_of_their_model(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("pools: [{name: org/m, aliases: [m], failover: false}, {name: other}]\n")
    wish = Wish("/models/x", flags=("--served-model-name", "org/m", "m", "n"))
    made = plan(Flags(config=path, serve=wish), {})
    engine = file.Engine(url="http://127.0.0.1:8200", name="gpu0")
    written = effective(made, "unix:/c", [engine], "")
    assert [pool.name for pool in written.pools] == ["other", "org/m"]
    pool = written.pools[1]
    assert (pool.aliases, pool.failover, pool.engines) == (("m", "n"), False, (engine,))
    assert written.engines == ()
    fresh = effective(plan(Flags(serve=Wish("a/b")), {}), "unix:/c", [engine], "")
    assert [(pool.name, pool.engines) for pool in fresh.pools] == [("a/b", (engine,))]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (Flags(demo=True, serve=Wish("m")), "--demo brings its own engines"),
        (Flags(engines=("http://h:1",), serve=Wish("m")), "--serve brings its own engines"),
        (Flags(serve=Wish(gpus="0")), "give --serve MODEL"),
    ],
)
def test_who_starts_engines_needs_no_others(given: Flags, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan(given, {})

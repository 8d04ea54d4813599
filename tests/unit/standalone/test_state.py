"""The state directory: one user at a time, secrets for nobody else, sockets that fit."""

from __future__ import annotations

import os
import pathlib
import re
import stat

import pytest

from standalone import state
from standalone.state import State, last_line
from trimtab.runtime.service import ConfigError


def mode(path: pathlib.Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_only_one_may_use_it(place: State) -> None:
    held = state.lock(place)
    with pytest.raises(ConfigError, match=rf"runs already in {place.root} \(process {os.getpid()}"):
        state.lock(place)
    os.close(held)
    os.close(state.lock(place))


def test_a_key_is_made_once_and_kept_for_us_alone(place: State) -> None:
    key = state.kept_key(place)
    assert re.fullmatch(r"sk-tt-[\w-]{32,}", key)
    assert state.kept_key(place) == key
    assert mode(place.root / "key") == 0o600


def test_private_files_are_replaced_whole(place: State) -> None:
    place.config.write_text("a long text that was readable")
    place.config.chmod(0o644)
    state.write_private(place.config, "short")
    assert (place.config.read_text(), mode(place.config)) == ("short", 0o600)
    assert [path.name for path in place.config.parent.iterdir()] == ["trimtab.json"]


def test_nobody_else_may_look_in(tmp_path: pathlib.Path) -> None:
    made = state.prepare(tmp_path / "s")
    assert {mode(path) for path in (made.root, made.logs, made.config.parent)} == {0o700}


def test_a_path_too_long_for_sockets_is_refused(tmp_path: pathlib.Path) -> None:
    root = tmp_path / ("x" * 100)
    with pytest.raises(ConfigError, match=r"bytes too long .* give a shorter --state"):
        state.prepare(root)
    assert not root.exists()


def test_every_socket_is_within_the_limit(place: State) -> None:
    longest = max(
        len(os.fsencode(place.notify_socket(name)))
        for name in ("controlplane", "agent", "edge", "demo-1")
    )
    assert longest == len(os.fsencode(place.root / "run/controlplane.notify"))
    assert len(place.control_target) <= longest


def test_a_file_in_the_way_is_named(place: State) -> None:
    (place.root / "file").touch()
    with pytest.raises(ConfigError, match=f"cannot use {place.root}/file.*see --state"):
        state.prepare(place.root / "file" / "s")


def test_one_previous_log_is_kept(place: State) -> None:
    log = place.log("edge")
    for text in ("first", "second", "third"):
        state.rotate(log)
        log.write_text(text)
    assert {path.name: path.read_text() for path in place.logs.iterdir()} == {
        "edge.log": "third",
        "edge.log.1": "second",
    }


@pytest.mark.parametrize(
    ("text", "line"), [("", ""), ("a\n\n", "a"), ("x" * 9000 + "\nlast", "last"), ("a\nb\n", "b")]
)
def test_last_line(text: str, line: str, place: State) -> None:
    place.log("a").write_text(text)
    assert last_line(place.log("a")) == line


def test_the_tail_is_of_the_last_start(place: State) -> None:
    log = place.log("a")
    log.write_text("old\nnew\n")
    assert state.tail(log, 4) == "new\n"
    assert state.tail(log, 400) == "old\nnew\n"  # it was cut since


def test_a_log_that_grew_too_long_starts_afresh(
    place: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "LOG_LIMIT_BYTES", 5)
    log = place.log("a")
    with log.open("a") as stream:
        for words in ("12345", "6"):
            stream.write(words)
            stream.flush()
            state.bound(log)
        assert log.read_text() == ""
        stream.write("on")
    assert (log.read_text(), log.with_name("a.log.1").read_text()) == ("on", "123456")
    state.bound(place.log("none"))

"""edge/config: flags over file over defaults; mistakes are one sentence."""

from __future__ import annotations

import pathlib

import pytest

from edge.answers import AnswerHeaders
from edge.config import from_args, host_port
from edge.core.outside import Target
from trimtab.runtime.service import ConfigError

TARGET = ("--controlplane", "unix:/run/control.sock")


def test_defaults_need_only_a_control_plane() -> None:
    config = from_args(TARGET)
    assert (config.host, config.port, config.admin_port) == ("127.0.0.1", 4000, 4001)
    assert config.listen_url == "http://127.0.0.1:4000"
    assert config.state_dir is None
    with pytest.raises(ConfigError, match="controlplane is not set"):
        from_args([])


def test_flags_win_over_the_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "trimtab.yaml"
    file.write_text("node: n1\nlisten: 127.0.0.1:5000\nstate_dir: /from/file\n")
    config = from_args(["--config", str(file), *TARGET, "--listen", "127.0.0.1:6000"])
    assert (config.port, config.name, str(config.state_dir)) == (6000, "n1-6000", "/from/file")


def test_the_engines_key_comes_from_the_environment_or_by_reference(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-from-file\n")
    file = tmp_path / "trimtab.yaml"
    file.write_text(f"upstream_key: {{file: {secret}}}\n")
    assert from_args(["--config", str(file), *TARGET]).upstream_key == "sk-from-file"
    monkeypatch.setenv("TRIMTAB_UPSTREAM_KEY", "sk-from-env")
    assert from_args(["--config", str(file), *TARGET]).upstream_key == "sk-from-env"


def test_what_answers_say_and_to_whom_comes_from_the_file(tmp_path: pathlib.Path) -> None:
    assert from_args(TARGET).headers == AnswerHeaders()
    file = tmp_path / "trimtab.yaml"
    file.write_text("edge: {route_headers: false, cors_origins: ['https://portal.lab']}\n")
    headers = from_args(["--config", str(file), *TARGET]).headers
    assert headers == AnswerHeaders(False, frozenset({"https://portal.lab"}))


@pytest.mark.parametrize("text", ["4000", "host:", "host:port", "h:70000", ""])
def test_an_address_is_host_and_port(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        host_port(text)


def test_ipv6_and_wildcards() -> None:
    assert host_port("[::1]:4000") == ("::1", 4000)
    wildcard = ".".join("0000") + ":4000"
    assert from_args([*TARGET, "--listen", wildcard]).listen_url == "http://127.0.0.1:4000"


def test_a_fallbacks_key_is_read_here_and_must_be_there(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trimtab.yaml"
    file.write_text(
        "pools:\n- name: big\n  fallback: {url: 'https://api.example.com/v1', "
        "key: {env: THEIR_KEY}, model: theirs}\n"
    )
    flags = ["--config", str(file), *TARGET]
    with pytest.raises(ConfigError, match="THEIR_KEY is not set"):
        from_args(flags)
    monkeypatch.setenv("THEIR_KEY", "sk-theirs")
    config = from_args(flags)
    assert config.fallbacks == {
        "big": Target("https://api.example.com/v1", "theirs", 16, "sk-theirs")
    }
    assert "sk-theirs" not in repr(config)


def test_workers_share_the_port_and_nothing_else(tmp_path: pathlib.Path) -> None:
    args = (*TARGET, "--name", "e1", "--state", str(tmp_path))
    alone, first, third = (
        from_args([*args, *worker]) for worker in ((), ("--worker", "1"), ("--worker", "3"))
    )
    assert [one.name for one in (alone, first, third)] == ["e1", "e1", "e1:3"]
    assert [one.admin_port for one in (alone, first, third)] == [4001, 4001, 4003]
    assert [one.port for one in (alone, first, third)] == [4000] * 3
    assert [one.shares_port for one in (alone, first, third)] == [False, True, True]


@pytest.mark.parametrize(("count", "number", "known"), [(1, 1, 0), (3, 1, 3), (3, 3, 3), (2, 3, 0)])
def test_workers_know_each_other(
    tmp_path: pathlib.Path, count: int, number: int, known: int
) -> None:
    file = tmp_path / "trimtab.yaml"
    file.write_text(f"edge: {{workers: {count}}}\n")
    args = (*TARGET, "--config", str(file), "--worker", str(number))
    workers = from_args([*args, "--state", str(tmp_path)]).workers
    assert (len(workers.sockets), workers.own) == (known, number - 1 if known else 0)
    assert len(set(workers.sockets)) == known
    assert from_args(args).workers.sockets == ()  # no place for them


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/v1/chat/completions/batch", ""),
        ("/collective_rpc", "never served"),
        ("/v1/load_lora_adapter", "never served"),
        ("/a/../sleep", "not a path"),
        ("//sleep", "not a path"),
        ("render", "not a path"),
    ],
)
def test_extra_paths(tmp_path: pathlib.Path, path: str, problem: str) -> None:
    file = tmp_path / "trimtab.yaml"
    file.write_text(f"edge: {{extra_paths: [{path}]}}\n")
    if not problem:
        assert from_args(["--config", str(file), *TARGET]).extra_paths == (path,)
    else:
        with pytest.raises(ConfigError, match=problem):
            from_args(["--config", str(file), *TARGET])

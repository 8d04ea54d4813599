"""An agent's configuration: flags over file, one sentence for each mistake."""

from __future__ import annotations

import pathlib

import pytest

from agent.config import EngineConfig, from_args
from trimtab.runtime.service import ConfigError

FILE = """
node: n1
controlplane: unix:/tmp/c.sock
report_period_s: 0.25
engines:
  - url: http://127.0.0.1:8000
pools:
  - name: m
    engines:
      - url: http://127.0.0.1:8001/
        name: big
        max_num_seqs: 32
"""
TARGET = ("--controlplane", "unix:/tmp/c.sock")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_UPSTREAM_KEY", raising=False)


def test_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "trimtab.yaml"
    path.write_text(FILE)
    config = from_args(["--config", str(path)])
    assert (config.node, config.controlplane) == ("n1", "unix:/tmp/c.sock")
    assert config.report_period_s == 0.25
    assert config.engines == (
        EngineConfig("n1-8000", "http://127.0.0.1:8000"),
        EngineConfig("big", "http://127.0.0.1:8001", 32),
    )
    assert (config.engines[1].host, config.engines[1].port) == ("127.0.0.1", 8001)


def test_flags_win(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "trimtab.yaml"
    path.write_text(FILE)
    flags = ["--node", "n2", "--controlplane", "h:1", "--engine", "http://127.0.0.1:9000"]
    config = from_args(["--config", str(path), *flags])
    assert (config.node, config.controlplane) == ("n2", "h:1")
    assert config.engines == (EngineConfig("n2-9000", "http://127.0.0.1:9000"),)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_UPSTREAM_KEY", " k \n")
    assert from_args([*TARGET, "--engine", "http://h:1"]).upstream_key == "k"


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--engine", "http://h:1"], "controlplane is not set"),
        (TARGET, "0 engines to watch"),
        ([*TARGET, "--engine", "h"], "is not a URL"),
        ([*TARGET, "--engine", "http://a:1", "--engine", "http://b:1"], "two engines are called"),
    ],
)
def test_mistakes(flags: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        from_args(flags)


def test_a_key_that_no_header_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_UPSTREAM_KEY", "a\nb")
    with pytest.raises(ConfigError, match="characters") as caught:
        from_args([*TARGET, "--engine", "http://h:1"])
    assert "a\nb" not in str(caught.value)


def test_a_batch_larger_than_any(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "trimtab.yaml"
    path.write_text("engines: [{url: 'http://h:1', max_num_seqs: 99999999999}]")
    with pytest.raises(ConfigError, match="max_num_seqs 99999999999 is above"):
        from_args([*TARGET, "--config", str(path)])

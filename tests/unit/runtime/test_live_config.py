"""Which settings are live, and how they are said on the wire and to people."""

from __future__ import annotations

import pathlib

import msgspec
import pytest

from trimtab.model import ApiKey, EdgePolicy, Pool
from trimtab.runtime import config as file
from trimtab.runtime import live_config
from trimtab.views import ConfiguredEngine

FILE = """
listen: 0.0.0.0:4000
upstream_key: {file: /etc/upstream}
pools:
  - name: big
    aliases: [gpt]
    failover: false
    request_timeout_s: 90
    fallback: {url: https://api.example.com/v1, key: {env: THERE}, model: gpt-4}
    engines:
      - {url: "http://h:8000/", name: gpu0, max_num_seqs: 64}
engines:
  - url: http://h:8001
    served_as: m
keys:
  - {name: one, key: {env: ONE}}
  - {name: two, sha256: "%s", models: [gpt], fallback: true}
edge:
  queue_wait_s: 1.5
  workers: 2
""" % ("cd" * 32)
# What a file's live settings are, by their sections; everything else is in RESTARTS.
LIVE = {
    file.Config: {"pools", "engines", "keys", "edge"},
    file.Pool: {"name", "aliases", "failover", "request_timeout_s", "idle_timeout_s", "hedge"}
    | {"engines"},
    file.Engine: {"url", "name", "served_as"},
    file.EdgeLimits: {"queue_limit", "queue_wait_s", "head_hold_s", "idle_timeout_s"}
    | {"total_timeout_s", "body_limit_bytes"},
}


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> file.Config:
    monkeypatch.setenv("ONE", "sk-one")
    return file.parse(FILE, "c.yaml")


@pytest.mark.parametrize("section", LIVE)
def test_every_setting_is_live_or_says_who_needs_a_restart(
    section: type[msgspec.Struct],
) -> None:
    names = {field.name for field in msgspec.structs.fields(section)}
    restarts = set(live_config.RESTARTS[section])
    assert names == LIVE[section] | restarts
    assert not LIVE[section] & restarts


def test_the_live_part(base: file.Config) -> None:
    live = live_config.live(base)
    assert live.pools == (Pool("big", ("gpt",), no_failover=True, request_timeout_ms=90_000),)
    assert live.engines == (
        ConfiguredEngine("http://h:8000", "big", "gpu0"),
        ConfiguredEngine("http://h:8001", served_as="m"),
    )
    assert live.keys[1] == ApiKey(b"\xcd" * 32, "two", models=("gpt",), fallback=True)
    assert live.policy == EdgePolicy(queue_wait_ms=1_500)


def test_the_rest_names_who_reads_it(base: file.Config) -> None:
    assert live_config.restarts(base) == {
        "listen": "edges",
        "upstream_key": "agents, edges",
        "edge.workers": "edges",
        "pools.big.fallback": "edges",
        "engines.http://h:8000.max_num_seqs": "agents",
    }
    said = {setting.path: setting.value for setting in live_config.settings(base)}
    assert said["upstream_key"] == '{"file": "/etc/upstream"}'


def test_in_the_files_words_without_a_key(base: file.Config, tmp_path: pathlib.Path) -> None:
    live = live_config.live(base)
    shown = live_config.document(live)
    assert [key.pop("sha256") for key in shown["keys"]] == ["***", "***"]
    for number, key in enumerate(shown["keys"]):
        key["sha256"] = live.keys[number].sha256.hex()
    path = tmp_path / "again.json"
    path.write_bytes(msgspec.json.encode(shown))
    assert live_config.live(file.load(path)) == live


def test_nothing_is_said_of_what_is_as_ever() -> None:
    nothing = live_config.live(file.Config())
    assert live_config.document(nothing) == {}
    assert live_config.outline(nothing) == {"edge": live_config.defaults()}
    assert live_config.defaults()["queue_limit"] == EdgePolicy().queue_limit

"""The configuration file: what it accepts, and that every mistake is named where it is."""

from __future__ import annotations

import json
import pathlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.runtime import config, shapes
from trimtab.runtime.service import ConfigError

WHOLE = """
fleet: lab-a
listen: 0.0.0.0:4000
report_period_s: 1
pools:
  - name: gpt-oss-120b
    aliases: [gpt, o]
    engines:
      - url: http://10.0.0.7:8000
        max_num_seqs: 128
      - {url: "https://[fe80::1]:8000/", name: gpu1, served_as: x}
engines:
  - url: http://10.0.0.8:8000
keys:
  - name: imaging
    sha256: 84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
  - name: trials
    key: {env: TRIALS_KEY}
upstream_key: {file: upstream.key}
edge:
  queue_wait_s: 30
"""


def errors(text: str) -> list[str]:
    """The problem lines of a file that must be refused."""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "t.yaml")
    *lines, summary = str(caught.value).splitlines()
    assert summary == f"{len(lines)} error{'s' * (len(lines) > 1)}. Nothing was applied."
    return [" ".join(line.split()) for line in lines]


def test_a_whole_file_is_read() -> None:
    read = config.parse(WHOLE, "t.yaml")
    assert read.fleet == "lab-a"
    assert read.report_period_s == 1.0
    assert [pool.name for pool in read.pools] == ["gpt-oss-120b"]
    assert read.pools[0].aliases == ("gpt", "o")
    assert [e.max_num_seqs for e in read.pools[0].engines] == [128, None]
    assert read.keys[1].key == config.Secret(env="TRIALS_KEY")
    assert read.edge == config.EdgeLimits(queue_wait_s=30.0)


def test_json_is_read_too() -> None:
    text = json.dumps({"listen": "127.0.0.1:4000", "engines": [{"url": "http://a:1"}]}, indent=2)
    assert config.parse(text, "t.json").engines[0].url == "http://a:1"


def test_what_we_write_we_read() -> None:
    read = config.parse(WHOLE, "t.yaml")
    assert config.parse(msgspec.json.encode(read).decode(), "t.json") == read


def test_the_documented_example_is_right() -> None:
    page = pathlib.Path(__file__).resolve().parents[3] / "docs" / "configuration.md"
    example = page.read_text().split("```yaml\n")[1].split("```")[0]
    assert config.parse(example, "example").pools[0].aliases == ("gpt-oss",)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_all_defaults(text: str) -> None:
    assert config.parse(text, "t.yaml") == config.Config()


CASES = {
    "fleet: 12": "t.yaml:1:8 error fleet: expected str, got int: put it in quotes",
    "fleet: a\nfleet: b": "t.yaml:2:1 error fleet: given twice, first on line 1",
    "fleet:": "t.yaml:1:7 error fleet: expected str, got nothing",
    "engines:\n- 5": "t.yaml:2:3 error engines[0]: expected a mapping, got a plain value "
    "allowed: url, name, served_as, max_num_seqs, unit",
    "engines: {}": "t.yaml:1:10 error engines: expected a list, got a mapping",
    "engines:\n- name: a": "t.yaml:2:3 error engines[0].url: missing",
    "engines:\n- {url: 'http://a:1', max_num_seqs: 0}": "t.yaml:2:37 error "
    "engines[0].max_num_seqs: expected int >= 1, got 0",
    "report_period_s: 0.01": "t.yaml:1:18 error report_period_s: expected float >= 0.1, got 0.01",
    "edge: {queue_limits: 1}": 't.yaml:1:8 error edge.queue_limits: unknown key (did you mean "'
    'queue_limit"?) allowed: queue_limit, queue_wait_s, head_hold_s, idle_timeout_s, '
    "total_timeout_s, drain_s, body_limit_bytes, extra_paths, tls, route_headers, cors_origins, "
    "access_log, workers",
    "edge: {access_log: {lines: off}}": "t.yaml:1:28 error edge.access_log.lines: "
    "not one of its words: off allowed: all, errors, none",
    "upstream_key: {credential: a/b}": "t.yaml:1:28 error upstream_key.credential: "
    "not a credential's name: letters, digits, dots, dashes and underscores",
    "upstream_key: {credential: a, env: A}": "t.yaml:1:15 error upstream_key: "
    "give exactly one of credential, env and file",
    "edge: {cors_origins: ['https://a.lab/x']}": "t.yaml:1:23 error edge.cors_origins[0]: "
    '"https://a.lab/x" is not an origin as browsers spell it, like https://portal.lab',
    "keys:\n- name: a": "t.yaml:2:3 error keys[0]: give exactly one of sha256 and key",
    "keys:\n- {name: a, key: {env: A}, models: []}": "t.yaml:2:3 error keys[0]: "
    "give at least one of models, or leave it out: all",
    "keys: [{name: a, key: {env: A}, expires: 2027-02-30}]": "t.yaml:1:42 error keys[0].expires: "
    '"2027-02-30" is neither a day like 2027-03-31 nor a time like 2027-03-31T18:00+02:00',
    "keys: [{name: a, key: {env: A}, expires: 2027-03-31 18:00}]": "t.yaml:1:42 error "
    'keys[0].expires: "2027-03-31 18:00" is neither a day like 2027-03-31 nor a time like '
    "2027-03-31T18:00+02:00",
    "pools:\n- {name: a, aliases: [b]}\n- {name: b}": "t.yaml:3:10 error "
    "pools[1].name: this model name is taken already, on line 2",
    "upstream_key: {env: A, file: b}": "t.yaml:1:15 error upstream_key: give exactly one of "
    "credential, env and file",
    "pools:\n- name: a\n- name: b\n  aliases: [c, a]": "t.yaml:4:16 error pools[1].aliases: "
    "this model name is taken already, on line 2",
    "engines:\n- url: http://a:1\npools:\n- name: p\n  engines: [{url: 'http://a:1/'}]": "t.yaml:5:"
    "19 error pools[0].engines[0].url: this engine URL is taken already, on line 2",
    "keys:\n- {name: k, key: {env: A}}\n- {name: k, key: {env: B}}": "t.yaml:3:10 error "
    "keys[1].name: this key name is taken already, on line 2",
    "pools:\n- {name: p, fallback: {url: 'http://a/v1', key: {env: A}, model: m}}": "t.yaml:2:29 "
    'error pools[0].fallback.url: "http://a/v1" is not a URL like https://host/v1 (http:// only on '
    "this machine)",
    "listen: 4000": "t.yaml:1:9 error listen: expected str, got int: put it in quotes",
    "listen: ':4000'": 't.yaml:1:9 error listen: ":4000" is not HOST:PORT (did you mean '
    '"127.0.0.1:4000"?)',
    "engines: [{url: 'http:/10.0.0.7:8000'}]": "t.yaml:1:17 error engines[0].url: "
    '"http:/10.0.0.7:8000" is not a URL like http://host:port (did you mean '
    '"http://10.0.0.7:8000"?)',
    "a: &x 1\nb: *x": "t.yaml:2:4 error aliases are refused: write it out",
    "fleet: [": "t.yaml:1:9 error expected the node content, but found '<stream end>'",
    "a: 1\n---\nb: 1": "t.yaml:2:1 error but found another document",
    "- a": "t.yaml:1:1 error expected a mapping, got a list allowed: fleet, node, listen, admin, "
    "controlplane, tls, insecure, controlplane_metrics, state_dir, etcd, report_period_s, "
    "pools, engines, keys, upstream_key, edge, otlp, remediation",
}


@pytest.mark.parametrize("text", CASES)
def test_a_mistake_is_named_where_it_is(text: str) -> None:
    assert errors(text) == [CASES[text]]


def test_all_mistakes_come_at_once_in_order() -> None:
    found = errors("edge: {queue_wait_s: -1}\nengines:\n- {url: x y}\nfleet: 1\nlistn: a\n")
    assert [line.split()[0] for line in found] == [f"t.yaml:{at}" for at in PLACES]


PLACES = ("1:22", "3:9", "4:8", "5:1")


def test_a_secret_written_in_the_file_by_mistake_is_not_repeated() -> None:
    text = "upstream_key: sk-hush\nkeys:\n- {name: a, sha256: sk-hush}\nengines:\n"
    text += "- url: http://user:sk-hush@h:1\n"
    found = errors(text)
    assert len(found) == 3
    assert "sk-hush" not in "".join(found)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a: " + "{" * 100_000, "\x00", "%", "a: !!python/x 1"]
)
def test_hostile_text_is_an_error_and_nothing_worse(text: str) -> None:
    with pytest.raises(ConfigError):
        config.parse(text, "t.yaml")


@given(st.text(alphabet="[]{}:-, \n\"'#&*!|>%@ab0.fletpoosngi", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    outcome: config.Config | str
    try:
        outcome = config.parse(text, "t.yaml")
    except ConfigError as error:
        outcome = str(error)
    assert isinstance(outcome, config.Config) or outcome.endswith("Nothing was applied.")


def test_files_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    binary, large = tmp_path / "binary", tmp_path / "large"
    binary.write_bytes(b"fleet: \xff")
    large.write_bytes(b"#" * (config.FILE_LIMIT_BYTES + 1))
    wanted = {
        tmp_path / "absent": "No such file",
        tmp_path: "Is a directory",
        binary: "not UTF-8 at byte 7",
        large: "larger than 1048576 bytes",
    }
    for path, text in wanted.items():
        with pytest.raises(ConfigError, match=text):
            config.load(path)


def test_secrets_are_resolved(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "key"
    kept.write_text("sk-from-file\n")
    monkeypatch.setenv("SOME_KEY", "sk-from-env")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert config.resolve(config.Secret(credential="key")) == "sk-from-file"
    assert config.resolve(config.Secret(file=str(kept))) == "sk-from-file"
    assert config.resolve(config.Secret(env="SOME_KEY")) == "sk-from-env"


def test_a_secret_that_cannot_be_resolved_says_so_and_no_more(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = tmp_path / "two"
    two.write_text("sk-hush sk-hush")
    monkeypatch.delenv("NO_KEY", raising=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    wanted = {
        config.Secret(env="NO_KEY"): "the environment variable NO_KEY is not set or empty",
        config.Secret(file=str(tmp_path / "none")): f"cannot read {tmp_path}/none: No such file",
        config.Secret(file=str(two)): f"{two}: must hold one secret and nothing else",
        config.Secret(credential="none"): "credential none: the unit has two: say LoadCredential=",
    }
    for secret, text in wanted.items():
        with pytest.raises(ConfigError) as caught:
            config.resolve(secret, "upstream_key")
        assert str(caught.value).startswith(f"upstream_key: {text}")
        assert "hush" not in str(caught.value)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(ConfigError, match=r"credential a: .CREDENTIALS_DIRECTORY is not set"):
        config.resolve(config.Secret(credential="a"))


URLS = {
    "http://127.0.0.1:8000": "",
    "https://gpu-1.lab.example:443/": "",
    "http://[::1]:8000": "",
    "http://h:0": "no such port",
    "http://h:70000": "no such port",
    "http://h": 'did you mean "http://h:8000"?',
    "h:8000": 'did you mean "http://h:8000"?',
    "http://h:8000/v1": 'did you mean "http://h:8000"?',
    "https//h:8000": 'did you mean "https://h:8000"?',
    "ftp://h:8000": "is not a URL",
    "8000": "is not a URL",
    "": "is not a URL",
}


@pytest.mark.parametrize("text", URLS)
def test_urls(text: str) -> None:
    problem = shapes.url_problem(text)
    assert URLS[text] in problem
    assert bool(problem) == bool(URLS[text])


ADDRESSES = {
    "127.0.0.1:4000": "",
    "[::]:4000": "",
    "h:65536": "no such port",
    "4000": 'did you mean "127.0.0.1:4000"?',
    "http://h:4000/": 'did you mean "h:4000"?',
    "h": "is not HOST:PORT",
    "::1:4000": "is not HOST:PORT",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses(text: str) -> None:
    problem = shapes.address_problem(text)
    assert ADDRESSES[text] in problem
    assert bool(problem) == bool(ADDRESSES[text])


@pytest.mark.parametrize(
    ("text", "parts"), [("127.0.0.1:4000", ("127.0.0.1", 4000)), ("[::1]:80", ("::1", 80))]
)
def test_addresses_split(text: str, parts: tuple[str, int]) -> None:
    assert shapes.split_address(text) == parts

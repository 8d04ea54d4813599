"""What is said of a file that nobody runs yet: every mistake, and what looks like one."""

from __future__ import annotations

import pathlib

import pytest

from trimtab.runtime import config_check
from trimtab.runtime.config import report
from trimtab.runtime.service import ConfigError

KEYS = "keys: [{name: k, sha256: %s}]\n" % ("ab" * 32)
CASES: dict[str, tuple[str, str]] = {
    "nothing wrong": (KEYS, ""),
    "no keys": ("fleet: lab\n", "1:1  warn   keys: there are none: nobody may call"),
    "both at one place": (
        KEYS + "listen: 127.0.0.1:4001\n",
        "2:9  warn   listen: clients and /metrics are both at 127.0.0.1:4001: see admin",
    ),
    "a model nobody knows": (
        KEYS.replace("}]", ", models: [gpt, big]}]") + "pools: [{name: big, engines: "
        "[{url: 'http://h:1'}]}]\n",
        '1:100  warn   keys[0].models: "gpt" is no pool or alias of this file',
    ),
    "two of one name": (
        KEYS + "node: n\nengines: [{url: 'http://a:1'}, {url: 'http://b:1'}]\n",
        "3:38  warn   engines[1].url: an agent on n would call this n-1, and http://a:1 too",
    ),
    "a variable that is not set": (
        "keys: [{name: k, key: {env: NOT_SET}}]\n",
        "1:29  warn   keys[0].key.env: the environment variable NOT_SET is not set here",
    ),
    "a file that is not there": (
        KEYS + "upstream_key: {file: /not/there}\n",
        "2:22  warn   upstream_key.file: /not/there is not there, on this machine",
    ),
    "an error beside it": ("fleeet: lab\n", '1:1  error  fleeet: unknown key (did you mean "fl'),
}


@pytest.mark.parametrize("name", CASES)
def test_each_is_named_with_its_place(name: str, tmp_path: pathlib.Path) -> None:
    text, said = CASES[name]
    path = tmp_path / "c.yaml"
    path.write_text(text)
    value, problems = config_check.check(path)
    lines = report(problems, "").splitlines() if problems else [""]
    assert any(said in line for line in lines), lines
    assert (value is None) == (" error " in lines[0])
    if not said:
        assert problems == []


def test_errors_and_warnings_are_counted(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("fleeet: lab\nlisten: 4000\npools: [{name: m}]\n")
    _, problems = config_check.check(path)
    assert report(problems, "c.yaml").splitlines()[-1] == (
        "2 errors, 1 warning. Nothing was applied."
    )


def test_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        config_check.check(tmp_path / "none.yaml")

"""LiteLLM's configuration as ours: each thing is carried over, or a line says why not."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from standalone import litellm, litellm_front, litellm_words
from standalone.config import sha256
from standalone.main import app
from trimtab.runtime import config as file
from trimtab.runtime.service import ConfigError

LAB = pathlib.Path(__file__).parents[2] / "data" / "litellm" / "lab.yaml"
SECRET = "sk-very-secret-text"


def entry(name: str, model: str, **params: Any) -> dict[str, Any]:
    """An entry of model_list."""
    return {"model_name": name, "litellm_params": {"model": model, **params}}


ENGINE = entry("m", "openai/m", api_base="http://a:8000/v1")
OUTSIDE = entry("big", "gpt-9", api_key="os.environ/OPENAI")


def carried(*entries: dict[str, Any], **sections: Any) -> litellm.Carried:
    """What becomes of these entries and sections."""
    return litellm.carry({"model_list": [*entries], **sections}, file.Config())


def said(made: litellm.Carried, what: str) -> str:
    """What was said of a thing."""
    (words,) = [words for about, words in made.lines if about.startswith(what)]
    return words


def test_the_labs_file_is_carried_over_whole() -> None:
    made = litellm.carry(litellm.document(LAB.read_text(), "lab"), file.Config())
    (pool,) = made.config.pools
    assert (pool.name, pool.request_timeout_s, pool.idle_timeout_s) == ("gpt-oss-120b", 600, None)
    assert pool.engines == (
        file.Engine("http://vllm-gpt-oss-120b:8000", "vllm-gpt-oss-120b", "gpt-oss-120b"),
        file.Engine("http://vllm-gpt-oss-120b_2:8000", "vllm-gpt-oss-120b_2", "gpt-oss-120b_2"),
    )
    found = yaml.safe_load(LAB.read_text())
    names = {name for section in ("router_settings", "litellm_settings") for name in found[section]}
    told = " ".join(what for what, _ in made.lines)
    assert [name for name in names - {"request_timeout"} if name not in told] == []
    assert "63 attempts" in said(made, "num_retries: 20")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://a:8000/v1", "http://a:8000"),
        ("http://a:8000/v1/", "http://a:8000"),
        ("http://a:8000", "http://a:8000"),
        ("http://a/v1", "http://a:80"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_addresses_become_engines(address: str, url: str) -> None:
    made = carried(entry("m", "hosted_vllm/org/m", api_base=address, api_key="EMPTY"))
    assert made.config.pools[0].engines == (file.Engine(url, served_as="org/m"),)
    assert made.config.upstream_key is None


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["http://a:1", "http://a:2"], ["", ""]),
        (["http://a:1", "http://b:1"], ["a", "b"]),
        (["http://a:1", "http://a:2", "http://b:1"], ["a-1", "a-2", "b"]),
    ],
)
def test_engines_on_one_port_get_names(urls: list[str], names: list[str]) -> None:
    made = carried(*(entry("m", "openai/m", api_base=url) for url in urls))
    assert [engine.name for engine in made.config.pools[0].engines] == names


@pytest.mark.parametrize("address", ["http://a:8000/proxy/v1", "http://u:p@a:1", "http://a:x"])
def test_what_is_no_engines_address_is_said(address: str) -> None:
    made = carried(entry("m", "openai/m", api_base=address))
    assert made.config.pools == ()
    assert "name it in the file yourself" in said(made, "model_list m: m")


@pytest.mark.parametrize(
    ("second", "aliases", "words"),
    [
        (entry("n", "openai/m", api_base="http://a:8000"), ("n",), "pools: m, aliases: n"),
        (entry("ada", "openai/ada", api_base="http://a:8000"), (), "lists its adapters itself"),
        (entry("x", "openai/ada", api_base="http://a:8000"), (), "is asked for as ada"),
        (entry("*", "openai/*"), (), "not here: each model is named"),
        (entry("c", "anthropic/claude"), (), "not here: engines with an http:// api_base"),
        (entry("o", "gpt-9"), (), "not here: no engine of yours"),
        (entry("e", "vllm/e", api_base="os.environ/E"), (), "import again"),
    ],
)
def test_a_second_entry(second: dict[str, Any], aliases: tuple[str, ...], words: str) -> None:
    made = carried(ENGINE, second)
    (pool,) = made.config.pools
    assert (pool.aliases, len(pool.engines)) == (aliases, 1)
    assert words in said(made, f"model_list {second['model_name']}")


@pytest.mark.parametrize("section", ["router_settings", "litellm_settings"])
def test_aliases_of_groups(section: str) -> None:
    given = {"model_group_alias": {"gpt-4": "m", "h": {"model": "m", "hidden": True}, "z": "no"}}
    made = carried(ENGINE, **{section: given})
    assert made.config.pools[0].aliases == ("gpt-4", "h")
    assert said(made, "model_group_alias z") == "not here: no is no pool"


@pytest.mark.parametrize(
    ("others", "fallback"),
    [
        (["big"], file.Fallback("https://api.openai.com/v1", file.Secret(env="OPENAI"), "gpt-9")),
        (["nobody"], None),
        ([], None),
    ],
)
def test_fallbacks_outside(others: list[str], fallback: file.Fallback | None) -> None:
    made = carried(ENGINE, OUTSIDE, router_settings={"fallbacks": [{"m": others}]})
    assert made.config.pools[0].fallback == fallback
    words = "for keys with fallback: true" if fallback else "not here"
    assert words in " ".join(words for _, words in made.lines)


def test_an_api_beside_engines_is_their_fallback() -> None:
    outside = entry("m", "openai/x", api_base="https://h/v1", api_key=SECRET)
    made = carried(ENGINE, outside)
    assert made.config.pools[0].fallback == file.Fallback(
        "https://h/v1", file.Secret(file=litellm.FALLBACK_KEY), "x"
    )


@pytest.mark.parametrize(
    ("keys", "expected", "words"),
    [
        (["os.environ/K", "os.environ/K"], file.Secret(env="K"), "upstream_key: {env: K}"),
        ([SECRET], file.Secret(file=litellm.UPSTREAM_KEY), "put it into"),
        (["os.environ/K", SECRET], file.Secret(env="K"), "2 different ones"),
    ],
)
def test_keys_of_engines(keys: list[str], expected: file.Secret, words: str) -> None:
    given = [
        entry("m", "openai/m", api_base=f"http://e{i}:1", api_key=k) for i, k in enumerate(keys)
    ]
    made = carried(*given)
    assert made.config.upstream_key == expected
    assert words in " ".join(words for _, words in made.lines)


@pytest.mark.parametrize(
    ("master", "key"),
    [
        ("os.environ/MASTER", file.Key("master", key=file.Secret(env="MASTER"))),
        (SECRET, file.Key("master", sha256=sha256(SECRET))),
    ],
)
def test_the_master_key_may_call(master: str, key: file.Key) -> None:
    assert carried(ENGINE, general_settings={"master_key": master}).config.keys == (key,)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"timeout": 30, "stream_timeout": 300}, (30, 300)),
        ({"timeout": "os.environ/T", "stream_timeout": 10}, (None, None)),
        ({}, (77, None)),
    ],
)
def test_timeouts(params: dict[str, Any], expected: tuple[float | None, float | None]) -> None:
    settings = {"timeout": 77} if not params else {}
    made = carried(entry("m", "m", api_base="http://a:1", **params), router_settings=settings)
    (pool,) = made.config.pools
    assert (pool.request_timeout_s, pool.idle_timeout_s) == expected


@pytest.mark.parametrize(
    ("section", "name", "words"),
    [
        ("litellm_params", "rpm", "not here: no limits by rate"),
        ("litellm_params", "temperature", "override-generation-config"),
        ("general_settings", "database_url", "--keys"),
        ("general_settings", "master_key_of_tomorrow", "unknown to this import"),
        ("router_settings", "redis_password", "dropped"),
        ("litellm_settings", "success_callback", "dropped"),
        ("", "include", "import each of these files"),
    ],
)
def test_no_setting_is_passed_over(section: str, name: str, words: str) -> None:
    assert words in litellm_words.verdict(section, name)


def test_no_line_tells_a_secret() -> None:
    made = carried(
        entry("m", "openai/m", api_base="http://a:1", api_key=SECRET, aws_secret_access_key=SECRET),
        router_settings={"redis_password": SECRET},
        general_settings={"master_key": SECRET, "database_url": f"postgresql://u:{SECRET}@h/d"},
        environment_variables={"X": SECRET},
    )
    assert SECRET not in str(made)
    assert said(made, "router_settings.redis_password")
    assert said(made, "environment_variables")


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "not YAML"), ("- a", "no list model_list"), ("model_list: 3", "no list model_list")],
)
def test_what_is_not_litellms_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        litellm.document(text, "f")


def test_litellm_in_front_has_one_deployment_a_name() -> None:
    found = litellm.document(LAB.read_text(), "lab")
    found["model_list"].append(OUTSIDE)
    pools = carried(*found["model_list"]).config.pools
    front = yaml.safe_load(litellm_front.trimmed(found, pools, "http://edge:4000/v1/"))
    assert front["model_list"] == [
        {
            "model_name": "gpt-oss-120b",
            "litellm_params": {
                "model": "openai/gpt-oss-120b",
                "api_base": "http://edge:4000/v1",
                "api_key": "os.environ/TRIMTAB_KEY",
            },
        },
        OUTSIDE,
    ]
    assert front["litellm_settings"]["num_retries"] == 0
    assert not {"allowed_fails", "cooldown_time"} & {
        *front["litellm_settings"],
        *front["router_settings"],
    }
    with pytest.raises(ConfigError, match="--in-front"):
        litellm_front.trimmed(found, pools, "edge")


def test_the_command_shows_before_it_writes(tmp_path: pathlib.Path) -> None:
    keys, output = tmp_path / "keys.csv", tmp_path / "t.yaml"
    keys.write_text(f"token,key_alias\n{sha256(SECRET)},imaging\n")
    told = CliRunner().invoke(app, ["import", "litellm", str(LAB), "--keys", str(keys)])
    assert told.exit_code == 0, told.output
    assert "# What people call it." in told.stdout
    assert "nothing is cooled down for being busy" in told.stderr
    arguments = ["import", "litellm", str(LAB), "--keys", str(keys), "-o", str(output)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert output.read_text() == told.stdout
    assert file.load(output).keys == (file.Key("imaging", sha256=sha256(SECRET)),)
    assert "left alone" in CliRunner().invoke(app, arguments).stderr
    missing = CliRunner().invoke(app, ["import", "litellm", str(tmp_path / "no")])
    assert "cannot read" in missing.stderr

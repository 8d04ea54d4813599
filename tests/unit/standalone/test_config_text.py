"""The commented configuration: it says what it was given, and what it offers is right."""

from __future__ import annotations

import pathlib
import re
import stat

import msgspec
import pytest

from standalone import config_text
from trimtab.runtime import config as file
from trimtab.runtime import config_words
from trimtab.runtime.service import ConfigError

OFF = re.compile(r"^( *)#(?=[\w-])(.*)$")
FULL = file.Config(
    node="here",
    pools=(
        file.Pool(
            "big",
            aliases=("b: #", "yes"),
            engines=(
                file.Engine("http://a:1", served_as="x"),
                file.Engine("http://b:1", name="bee"),
            ),
            fallback=file.Fallback("https://h/v1", file.Secret(env="KEY"), "m"),
        ),
        file.Pool("small", hedge=True),
    ),
    keys=(file.Key("k", key=file.Secret(file="/k"), models=("big",), expires="2027-03-31"),),
    edge=file.EdgeLimits(queue_limit=7, tls=file.Certificate("/c", "/k")),
)


@pytest.mark.parametrize("value", [file.Config(), FULL])
def test_it_reads_as_what_it_was_given(value: file.Config) -> None:
    assert file.parse(config_text.text(value, "why"), "f") == value


def test_every_setting_is_there_once_and_explained() -> None:
    made = config_text.text(file.Config(), "why")
    for section in file.Section.__subclasses__():
        if section is file.Secret:
            continue
        for one in config_words.settings(section):
            assert re.search(rf"^ *#(- )?{one.name}:", made, re.MULTILINE), one.name
            words = " ".join(re.sub(r"^ *# ", "", made, flags=re.MULTILINE).split())
            assert one.meaning in words


def test_what_is_off_is_right_without_its_mark() -> None:
    value = msgspec.structs.replace(file.Config(), engines=(file.Engine("http://127.0.0.1:1"),))
    lines = config_text.text(value, "why").splitlines()
    on = "\n".join(OFF.sub(r"\1\2", line) for line in lines if "#sha256:" not in line)
    made = file.parse(on, "f")
    assert made.etcd
    assert made.pools[0].fallback
    assert made.edge.cors_origins == ("https://portal.lab",)


@pytest.mark.parametrize("place", sorted(config_text.EXAMPLES, key=str))
def test_no_example_outlives_its_setting(place: tuple[type[msgspec.Struct], str]) -> None:
    struct, name = place
    assert name in {one.name for one in config_words.settings(struct)}


def test_a_file_that_is_there_is_left_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.yaml"
    config_text.save(path, "one\n", force=False)
    with pytest.raises(ConfigError, match=r"is there already, and was left alone.*--force"):
        config_text.save(path, "two\n", force=False)
    assert path.read_text() == "one\n"
    config_text.save(path, "2\n", force=True)
    assert path.read_text() == "2\n"
    assert not stat.S_IMODE(path.stat().st_mode) & 0o007
    with pytest.raises(ConfigError, match="cannot write"):
        config_text.save(tmp_path / "no" / "t.yaml", "", force=False)

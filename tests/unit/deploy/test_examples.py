"""The files below deploy/ that people start from: each is right, and fits its neighbours."""

from __future__ import annotations

import pathlib
import re
import shlex
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from trimtab.runtime import config as file

DEPLOY = pathlib.Path(__file__).parents[3] / "deploy"
INVENTORY: dict[str, Any] = yaml.safe_load((DEPLOY / "ansible/inventory.example.yml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())


@pytest.mark.parametrize("name", ["compose/trimtab.yaml", "kubernetes/config.yaml"])
def test_configurations_are_right(name: str) -> None:
    made = file.load(DEPLOY / name)
    engines = [engine for pool in made.pools for engine in pool.engines]
    assert all(engine.name and engine.max_num_seqs for engine in engines)
    assert made.keys


def test_the_inventorys_configuration_is_right() -> None:
    variables = INVENTORY["trimtab"]["vars"]
    made = file.parse(yaml.safe_dump(variables["trimtab_config"]), "inventory")
    for key in made.keys:
        assert key.key
        assert pathlib.Path(key.key.file).name in variables["trimtab_secrets"]


def test_compose_and_its_configuration_name_the_same_engines() -> None:
    services = COMPOSE["services"]
    (pool,) = file.load(DEPLOY / "compose/trimtab.yaml").pools
    assert {*services} == {*(engine.name for engine in pool.engines), "trimtab"}
    for engine in pool.engines:
        words = shlex.split(services[engine.name]["command"])
        place = urlsplit(engine.url)
        assert (place.hostname, [str(place.port)]) == (engine.name, services[engine.name]["expose"])
        assert engine.served_as == words[words.index("--served-model-name") + 1]
        assert engine.max_num_seqs == int(words[words.index("--max-num-seqs") + 1])
    given = str(services["trimtab"]["environment"])
    for key in file.load(DEPLOY / "compose/trimtab.yaml").keys:
        assert key.key
        assert key.key.env in given


def test_what_is_installed_and_taken_away_exists() -> None:
    script = (DEPLOY / "install.sh").read_text()
    for unit in (DEPLOY / "systemd").glob("trimtab-*"):
        assert f"$units/{unit.name}" in script, f"install.sh uninstall leaves {unit.name} behind"
    for unit in re.findall(r"trimtab-[a-z@]+\.(?:service|socket)", script):
        assert (DEPLOY / "systemd" / unit).exists(), unit


def test_the_role_notifies_handlers_that_there_are() -> None:
    role = DEPLOY / "ansible/roles/trimtab"
    handlers = yaml.safe_load((role / "handlers/main.yml").read_text())
    known = {name for handler in handlers for name in (handler["name"], handler.get("listen"))}
    notified = re.findall(r"notify: (.+)", (role / "tasks/main.yml").read_text())
    assert notified
    assert {*notified} <= known

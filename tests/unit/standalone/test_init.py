"""`trimtab init`: what it makes of a machine."""

from __future__ import annotations

import pathlib
import re
from types import ModuleType

import pytest
from typer.testing import CliRunner

import agent.config
import controlplane.config
import edge.config
from standalone import config_text, init
from standalone.config import sha256
from standalone.discover import Found, Kind
from standalone.main import app
from trimtab.runtime import config as file
from trimtab.runtime import service

LEFT = Found("http://127.0.0.1:8000", Kind.VLLM, "0.32.0", ("gpt-oss-120b",))
RIGHT = Found("http://127.0.0.1:8003", Kind.LOCKED, "0.32.0")
PERSON = pathlib.Path("/home/a/state")


@pytest.mark.parametrize(
    ("machine", "urls", "said"),
    [
        (init.Machine("n"), [], "no vLLM on 127.0.0.1:8000-8007: name yours below engines"),
        (
            init.Machine("n", gpus=("NVIDIA H200", "NVIDIA H200")),
            ["http://127.0.0.1:8000", "http://127.0.0.1:8001"],
            "one a GPU is expected there",
        ),
        (
            init.Machine("n", (LEFT, RIGHT), ("NVIDIA H200",)),
            [LEFT.url, RIGHT.url],
            "http://127.0.0.1:8003: vLLM 0.32.0, it wants a key: name it in upstream_key",
        ),
    ],
)
def test_engines_are_what_was_found(machine: init.Machine, urls: list[str], said: str) -> None:
    made = init.configuration(machine, PERSON, "sk-k")
    assert [engine.url for engine in made.engines] == urls
    assert said in "\n".join(init.notes(machine, made))


def test_a_persons_and_the_systems_differ_in_places() -> None:
    own = init.configuration(init.Machine("n"), PERSON, "sk-k")
    system = init.configuration(init.Machine("n"), None, "sk-k")
    assert (own.state_dir, own.controlplane) == (str(PERSON), f"unix:{PERSON}/control.sock")
    assert (system.state_dir, system.edge.drain_s) == ("/var/lib/trimtab", 840)
    assert own.keys == system.keys == (file.Key("users", sha256=sha256("sk-k")),)


def test_the_command_writes_a_right_file_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def seen() -> init.Machine:
        return init.Machine("box", (LEFT,))

    monkeypatch.setattr(init, "seen", seen)
    path = tmp_path / "t.yaml"
    done = CliRunner().invoke(app, ["init", str(path)])
    assert done.exit_code == 0, done.output
    made = file.load(path)
    (key,) = re.findall(r"sk-tt-\S+", done.output)
    assert made.keys[0].sha256 == sha256(key)
    assert key not in path.read_text()
    assert "vLLM 0.32.0, gpt-oss-120b" in done.output
    again = CliRunner().invoke(app, ["init", str(path)])
    assert (again.exit_code, "left alone" in again.output) == (service.EXIT_CONFIG, True)
    assert file.load(path) == made


@pytest.mark.parametrize("state_dir", [PERSON, None])
@pytest.mark.parametrize("part", [agent.config, controlplane.config, edge.config])
def test_every_part_takes_the_file(
    tmp_path: pathlib.Path, part: ModuleType, state_dir: pathlib.Path | None
) -> None:
    machine = init.Machine("box", (LEFT,))
    made = init.configuration(machine, state_dir, "sk-k")
    path = tmp_path / "t.yaml"
    path.write_text(config_text.text(made, init.heading(machine)))
    assert made.controlplane in str(part.from_args(["--config", str(path)]))


def test_without_a_driver_there_are_no_gpus() -> None:
    assert isinstance(init.gpus(), tuple)

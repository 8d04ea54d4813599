"""The keeper with real processes: nothing that an engine started outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace

import psutil
import pytest

from standalone import restart, serving
from standalone.serving import Machine, Wish
from standalone.state import State
from standalone.supervisor import Spec
from tests.e2e.starter import free_address
from tests.fakes import vllm
from tests.fakes.supervised import Record, ours, running
from tests.fakes.wait import until


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test must leave no child."""
    yield
    assert ours() == []


def engine(place: State, env: Mapping[str, str]) -> Spec:
    """A keeper of a fake vLLM."""
    found = Machine(vllm.install(place.root))
    port = int(free_address().rpartition(":")[2])
    _, specs = serving.engines(Wish("m"), found, [port], "")
    return replace(specs[0], env={**specs[0].env, **env})


def processes(word: str) -> list[psutil.Process]:
    """Those with this word on their command line."""
    return [p for p in ours() if word in p.cmdline()]


def apis() -> list[psutil.Process]:
    """API servers."""
    return [p for p in processes("serve") if any(w.endswith("/vllm") for w in p.cmdline()[:2])]


async def test_loading_is_told_a_death_ends_all_of_it_and_it_comes_back(
    place: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "ENGINE_WAITS_S", (0.01, 0.02))
    loads = place.root / "loads"
    loads.touch()
    record = Record()
    async with running(place, record, engine(place, {"FAKE_VLLM_LOADS": str(loads)})):
        await until(lambda: bool(record.lines))
        assert record.lines[0].startswith("cpu0: loads for ")
        assert record.lines[0].endswith(" s: Loading weights: 43%")
        loads.unlink()
        await until(lambda: record.lines[-1] == "cpu0 loaded")
        (old,) = cores = processes("VLLM::EngineCore")
        apis()[0].kill()
        await until(lambda: record.lines[-1] == "cpu0 back")
        assert not old.is_running()
        (core,), (api,) = processes("VLLM::EngineCore"), apis()
        assert core not in cores
        processes("standalone.keeper")[0].kill()  # nobody is left to end them but the supervisor
        await until(lambda: not core.is_running() and not api.is_running())
    assert any(line.startswith("cpu0 was killed by SIGKILL: ") for line in record.lines)


def test_kill_minus_nine_of_the_starter_ends_all_of_it(place: State) -> None:
    loads = place.root / "loads"
    loads.touch()
    argv = engine(place, {}).argv
    code = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True).wait()"
    env = {**os.environ, "FAKE_VLLM_LOADS": str(loads)}
    started = [sys.executable, "-c", code, *argv]
    with (place.logs / "out").open("w") as out:
        starter = subprocess.Popen(started, stdout=out, env=env)
        family: list[psutil.Process] = []
        while not any("VLLM::EngineCore" in process.cmdline() for process in family):
            psutil.wait_procs(family, timeout=0.01)
            family = psutil.Process(starter.pid).children(recursive=True)
        starter.kill()
        starter.wait()
    assert psutil.wait_procs(family, timeout=10)[1] == []

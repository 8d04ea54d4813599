"""The supervisor with real, small processes: order, restarts, giving up, ending, and the leash."""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from standalone import leash, restart
from standalone.state import State
from standalone.supervisor import Spec, StartError, Supervisor
from tests.fakes.supervised import Record, ours, running
from tests.fakes.wait import until
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHILD = (sys.executable, str(ROOT / "tests" / "fakes" / "child.py"))


def spec(name: str, *words: str, grace_s: float = 5.0) -> Spec:
    """A fake child."""
    return Spec(name, (*CHILD, *words), grace_s)


def engine(name: str, *words: str) -> Spec:
    """One that loads."""
    return Spec(name, (*CHILD, *words), loads=True)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test must leave no child."""
    yield
    assert ours() == []


async def test_children_start_in_order_and_end_in_reverse(place: State) -> None:
    record = Record()
    first = spec("a", "status=here", "ready", "forever")
    second = spec("b", "status=here too", "ready", "forever")
    async with running(place, record, first, second) as up:
        await up.wait()
        assert [p.is_running() for p in ours()] == [True, True]
    assert record.lines == ["a: here", "b: here too"]


async def test_the_next_one_waits_until_the_one_before_is_ready(place: State) -> None:
    marker = place.root / "b-ran"
    first = spec("a", "forever")
    second = spec("b", f"once={marker}", "ready", "forever")
    async with running(place, Record(), first, second) as up:
        await until(lambda: len(ours()) == 1 and "child.py" in " ".join(ours()[0].cmdline()))
        assert not up.is_set()
    assert not os.path.exists(marker)  # noqa: ASYNC240


async def test_a_child_that_dies_comes_back(place: State) -> None:
    record = Record()
    async with running(place, record, spec("a", "ready", "forever")) as up:
        await up.wait()
        ours()[0].kill()
        await until(lambda: "a back" in record.lines)
    assert record.lines == ["a was killed by SIGKILL True a.log", "a back"]


async def test_a_first_start_may_fail_and_is_tried_again(place: State) -> None:
    record = Record()
    words = (f"once={place.root / 'tried'}", "exit=1", "ready", "forever")
    async with running(place, record, spec("a", *words)) as up:
        await up.wait()
    assert record.lines == ["a ended with exit status 1 True a.log", "a back"]


async def test_a_wrong_configuration_is_given_up_with_its_sentence(place: State) -> None:
    with pytest.raises(ConfigError, match=r"^a: listen: not an address$"):
        async with running(place, Record(), spec("a", "say=listen: not an address", "exit=64")):
            await asyncio.Event().wait()


async def test_who_never_gets_ready_is_given_up_and_the_others_end(place: State) -> None:
    specs = (spec("a", "ready", "forever"), spec("b", "say=no luck", "exit=3"))
    wanted = rf"^b ended with exit status 3: no luck \({place.log('b')}\)$"
    with pytest.raises(StartError, match=wanted):
        async with running(place, Record(), *specs):
            await asyncio.Event().wait()


async def test_a_deaf_child_is_killed_after_its_grace(place: State) -> None:
    async with running(place, Record(), spec("a", "deaf", "ready", "forever", grace_s=0.1)) as up:
        await up.wait()
        child = ours()[0]
    assert not child.is_running()


async def test_a_stopped_child_is_ended_too(place: State) -> None:
    async with running(place, Record(), spec("a", "ready", "forever", grace_s=0.1)) as up:
        await up.wait()
        child = ours()[0]
        child.suspend()
    assert not child.is_running()


async def test_kill_cuts_every_grace_short(place: State) -> None:
    stop, up = asyncio.Event(), asyncio.Event()
    deaf = spec("a", "deaf", "ready", "forever", grace_s=3600)
    supervisor = Supervisor([deaf], place, random.Random(1), Record())
    async with TaskRunner() as tasks:
        _ = tasks.once("supervisor", supervisor.run(stop, up))
        await up.wait()
        stop.set()
        await asyncio.sleep(0)
        supervisor.kill()
    assert ours() == []


@pytest.mark.parametrize("turns", range(0, 24, 2))
async def test_it_can_be_stopped_at_any_moment_of_the_start(turns: int, place: State) -> None:
    specs = (spec("a", "ready", "forever"), spec("b", "ready", "forever"))
    async with running(place, Record(), *specs):
        for _ in range(turns):
            await asyncio.sleep(0)
    assert ours() == []


async def test_the_previous_log_is_kept_and_restarts_append(place: State) -> None:
    words = ("say=hello", f"once={place.root / 'tried'}", "exit=1", "ready", "forever")
    for _ in range(2):
        async with running(place, Record(), spec("a", *words)) as up:
            await up.wait()
    logs = {name: (place.logs / name).read_text() for name in os.listdir(place.logs)}
    assert logs == {"a.log.1": "hello\nhello\n", "a.log": "hello\n"}


async def test_an_engine_that_loads_holds_nothing_up(place: State) -> None:
    record = Record()
    loading, service = engine("e", "status=loads", "forever"), spec("a", "ready", "forever")
    async with running(place, record, loading, service) as up:
        await up.wait()
        await until(lambda: record.lines == ["e: loads"])
        assert len(ours()) == 2


async def test_an_engine_that_never_starts_is_given_up_alone(
    place: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "ENGINE_WAITS_S", (0.01, 0.02))
    record, said = Record(), "OSError: [Errno 28] No space left on device"
    words = (f"say={said}", "exit=1")
    async with running(place, record, engine("e", *words), engine("f", "ready", "forever")):
        await until(lambda: len(record.lines) == 4)
    record.lines.remove("f loaded")
    why = (
        "e ended with exit status 1: OSError: [Errno 28] No space left on device\n  a disk is full"
    )
    assert record.lines[:2] == [f"{why} True e.log"] * 2
    assert record.lines[2].startswith(f"given up: {why}\n  it is not started again; its log: ")


async def test_the_last_engine_that_is_given_up_ends_all(place: State) -> None:
    words = ("say=vllm: error: unrecognized arguments: --no", "exit=2")
    with pytest.raises(StartError, match="unrecognized arguments: --no\n  this vLLM has no such"):
        async with running(place, Record(), spec("a", "ready", "forever"), engine("e", *words)):
            await asyncio.Event().wait()


async def test_an_engine_that_served_may_fail_a_start(
    place: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "ENGINE_WAITS_S", (0.01, 0.02))
    record = Record()
    async with running(place, record, engine("e", "ready", "forever")):
        for _ in range(restart.FIRST_TRIES + 1):
            before = len(record.lines)
            await until(lambda: record.lines[-1:] in (["e loaded"], ["e back"]))
            ours()[0].kill()
            await until(lambda at=before: len(record.lines) >= at + 2)  # type: ignore[misc]
        await until(lambda: record.lines[-1] == "e back")


def test_kill_minus_nine_of_the_starter_ends_the_child() -> None:
    program = [sys.executable, "-c", "import signal; print(1, flush=True); signal.pause()"]
    starter_code = (
        "import os, subprocess, sys;"
        f"leash, program = {leash.__file__!r}, {program!r};"
        "p = subprocess.Popen([sys.executable, leash, str(os.getpid()), *program]);"
        "print(p.pid, flush=True); p.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", starter_code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        lines = {int(starter.stdout.readline()), int(starter.stdout.readline())}
        child = psutil.Process((lines - {1}).pop())
        os.kill(starter.pid, signal.SIGKILL)
        psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == "zombie"


def test_the_leash_runs_nothing_when_the_starter_is_gone() -> None:
    done = subprocess.run(
        [sys.executable, leash.__file__, "1", "/bin/echo", "ran"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")

"""The supervisor with real, small processes: order, restarts, giving up, ending, and the leash."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from standalone import leash
from standalone.state import State
from standalone.supervisor import Spec, StartError, Supervisor, last_line
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHILD = (sys.executable, str(ROOT / "tests" / "fakes" / "child.py"))


@dataclass
class Record:
    """An audience that writes down what it is told."""

    lines: list[str] = field(default_factory=list)

    def died(self, name: str, how: str, wait_s: float, log: pathlib.Path) -> None:
        """A death."""
        self.lines.append(f"{name} {how} {wait_s <= 0.2} {log.name}")

    def back(self, name: str) -> None:
        """A return."""
        self.lines.append(f"{name} back")

    def status(self, name: str, text: str) -> None:
        """A status."""
        self.lines.append(f"{name}: {text}")


def spec(name: str, *words: str, grace_s: float = 5.0) -> Spec:
    """A fake child."""
    return Spec(name, (*CHILD, *words), grace_s)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - other processes set no events of ours
            await asyncio.sleep(0.01)


def ours() -> list[psutil.Process]:
    """Living children of this process."""
    return [p for p in psutil.Process().children(recursive=True) if p.status() != "zombie"]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test must leave no child."""
    yield
    assert ours() == []


@contextlib.asynccontextmanager
async def running(place: State, record: Record, *specs: Spec) -> AsyncIterator[asyncio.Event]:
    """A supervisor for the length of a block; gives the event that says that all are up."""
    stop, up = asyncio.Event(), asyncio.Event()
    supervisor = Supervisor(specs, place, random.Random(1), record)
    async with TaskRunner() as tasks:
        _ = tasks.once("supervisor", supervisor.run(stop, up))
        yield up
        stop.set()


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


@pytest.mark.parametrize(
    ("text", "line"), [("", ""), ("a\n\n", "a"), ("x" * 9000 + "\nlast", "last"), ("a\nb\n", "b")]
)
def test_last_line(text: str, line: str, place: State) -> None:
    place.log("a").write_text(text)
    assert last_line(place.log("a")) == line


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

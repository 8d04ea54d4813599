"""The control plane as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.peers import fake_agent, fake_edge
from trimtab.model import Serving
from trimtab.runtime import rpc

DEADLINE_S = 45.0


def command(directory: pathlib.Path, *more: str) -> list[str]:
    address, store = f"unix:{directory}/control.sock", str(directory / "trimtab.db")
    base = [sys.executable, "-m", "controlplane", "--listen", address, "--store", store]
    return [*base, *more]


@contextmanager
def started(directory: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """A control plane in a process of its own; killed at the end if it still lives."""
    with subprocess.Popen(command(directory), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def refusal(directory: pathlib.Path, *more: str) -> str:
    """What a control plane that can't start says; its exit status must be 64."""
    done = subprocess.run(
        command(directory, *more), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 64, done
    return done.stderr.strip()


async def ready(directory: pathlib.Path) -> str:
    target = f"unix:{directory}/control.sock"
    async with rpc.channel(target) as channel:
        await channel.channel_ready()
    return target


async def test_sigterm_ends_it_well_and_its_socket_is_private(tmp_path: pathlib.Path) -> None:
    with started(tmp_path) as process:
        await ready(tmp_path)
        assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "trimtab.db").stat().st_mode & 0o777 == 0o600
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


async def test_a_second_one_says_who_is_there(tmp_path: pathlib.Path) -> None:
    with started(tmp_path):
        target = await ready(tmp_path)
        assert refusal(tmp_path) == f"another control plane is running on {target}"
        elsewhere = ("--listen", f"unix:{tmp_path}/other.sock")
        assert "is in use by another process" in refusal(tmp_path, *elsewhere)


async def test_after_kill_9_it_starts_again_and_knows_the_fleet(tmp_path: pathlib.Path) -> None:
    with started(tmp_path) as process:
        target = await ready(tmp_path)
        async with fake_agent(target) as agent, fake_edge(target) as edge:
            await agent.serve("r1")
            await edge.until_serving("r1", Serving.OPEN)
            async with fake_edge(target, "later") as later:
                await later.until_serving("r1", Serving.OPEN)
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE_S)
    assert (tmp_path / "control.sock").is_socket(), "kill -9 leaves the socket behind"

    with started(tmp_path):
        async with fake_edge(await ready(tmp_path)) as edge:
            await edge.until_serving("r1", Serving.OPEN)
            assert edge.updates[0].term == 2


def test_a_port_that_is_taken_is_named(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refusal(tmp_path, "--listen", address)
    assert said.startswith(f"cannot listen on {address}")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        ("file", "is a file, not a socket"),
        ("long", "is too long for a socket: at most 107 bytes"),
        ("nowhere", "is not a directory"),
        ("junk", "move it away to start afresh"),
    ],
)
def test_what_is_in_the_way_is_named(tmp_path: pathlib.Path, make: str, text: str) -> None:
    (tmp_path / "a file").write_text("precious")
    (tmp_path / "junk.db").write_text("junk" * 1000)
    more = {
        "file": ("--listen", f"unix:{tmp_path}/a file"),
        "long": ("--listen", f"unix:{tmp_path}/{'x' * 100}"),
        "nowhere": ("--listen", f"unix:{tmp_path}/nowhere/c.sock"),
        "junk": ("--store", str(tmp_path / "junk.db")),
    }
    said = refusal(tmp_path, *more[make])
    assert text in said
    assert "\n" not in said
    assert (tmp_path / "a file").read_text() == "precious"

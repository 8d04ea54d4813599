"""The agent as a process: ready, told to stop, badly configured."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import socket
import sys

import pytest

from tests.fakes.control_plane import FakeControlPlane
from tests.fakes.engines import sim_engine
from tests.fakes.wait import until
from trimtab.model import Bye, EngineState

ROOT = pathlib.Path(__file__).parents[2]


async def start(*flags: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *flags),
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.PIPE,
    )


async def test_says_that_it_is_ready_and_leaves_in_order(tmp_path: pathlib.Path) -> None:
    control = FakeControlPlane()
    target = f"unix:{tmp_path}/c.sock"
    server = await control.start(target)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify.sock"))
        notices.setblocking(False)
        async with sim_engine() as engine:
            flags = ("--controlplane", target, "--node", "n1", "--engine", engine.url)
            agent = await start(*flags, NOTIFY_SOCKET=str(tmp_path / "notify.sock"))
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(20.0):
                notice = await loop.sock_recv(notices, 4096)
            assert notice == b"READY=1\nSTATUS=watching 1 engines"
            replica = f"n1-{engine.url.rsplit(':', 1)[1]}"
            await until(lambda: bool(control.samples(replica)))
            assert control.samples(replica)[-1].state is EngineState.READY
            agent.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5.0):
                assert await agent.wait() == 0
    assert control.all(Bye) == [Bye("shutting down")]
    await server.stop(None)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "controlplane is not set: --controlplane unix:/path or host:port"),
        (("--controlplane", "h:1"), "0 engines to watch; 1 to 64: --engine URL"),
        (("--config", "/nonexistent.yaml"), "cannot read /nonexistent.yaml"),
    ],
)
async def test_a_mistake_is_one_sentence_and_exit_64(flags: tuple[str, ...], sentence: str) -> None:
    agent = await start(*flags)
    _, said = await agent.communicate()
    assert agent.returncode == 64
    assert said.decode().startswith(sentence)
    assert said.count(b"\n") == 1

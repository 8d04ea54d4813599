"""SIGHUP while everything runs: an edge, an agent and a control plane take their file anew."""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import signal
from collections.abc import Callable, Iterator

import aiohttp
import pytest

from agent.config import from_args as agent_args
from agent.main import serve_until
from controlplane.config import from_args as controlplane_args
from edge.config import from_args as edge_args
from edge.reload import Configured
from tests.fakes.edge import running_edge
from tests.fakes.local_engine import local_engine
from tests.fakes.peers import fake_edge
from tests.fakes.running_control_plane import running
from tests.fakes.wait import DEADLINE_S, until
from trimtab.runtime.tasks import TaskRunner

HASH = "ab" * 32


class File:
    """A configuration file that changes."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._path = directory / "t.yaml"
        self._fixed = f"state_dir: {directory}\ncontrolplane: unix:{directory}/control.sock\n"
        self.argv = ["--config", str(self._path)]

    def write(self, text: str) -> None:
        self._path.write_text(self._fixed + text)


@pytest.fixture
def written(tmp_path: pathlib.Path) -> File:
    return File(tmp_path)


@pytest.fixture(autouse=True)
def survives() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until somebody listens
    yield
    signal.signal(signal.SIGHUP, before)


async def hup(told: Callable[[], bool]) -> None:
    """Send the signal until it has changed what it is to change."""
    async with asyncio.timeout(DEADLINE_S):
        while not told():
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)


async def test_an_edge_takes_what_it_can_and_names_the_rest(
    tmp_path: pathlib.Path, written: File
) -> None:
    log = tmp_path / "access.log"
    logged = f"edge:\n  access_log: {{lines: all, file: {log}}}\n"
    written.write("listen: 127.0.0.1:4000\n")
    async with (
        aiohttp.ClientSession() as http,
        running_edge([]) as edge,
        TaskRunner() as runner,
    ):
        configured = Configured(edge_args(written.argv), edge.endpoint, edge.metrics)
        reloading = configured.follow(runner, None)

        async def ask() -> int:
            async with http.get(f"{edge.url}/v1/models") as answer:
                return answer.status

        written.write(f"listen: 127.0.0.1:4009\n{logged}")
        await hup(log.exists)
        assert await ask() == 401
        await until(lambda: bool(log.read_text()))

        written.write(f"{logged}  drain_s: many\n")
        await hup(lambda: "drain_s" in reloading.problem)
        assert b"trimtab_config_last_reload_successful 0.0" in edge.metrics.render()
        log.unlink()
        await ask()
        await until(log.exists)

        written.write("edge:\n  drain_s: 7\n")
        await hup(lambda: not reloading.problem)
        assert configured.now.drain_s == 7.0
        assert b"trimtab_config_last_reload_successful 1.0" in edge.metrics.render()


async def test_a_control_plane_takes_keys_pools_and_limits(
    written: File, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    written.write(f"keys: [{{name: one, sha256: '{HASH}'}}]\n")
    config = controlplane_args(written.argv)
    async with running(config), fake_edge(config.listen) as edge:
        await until(lambda: bool(edge.updates) and len(edge.snapshot.keys) == 1)
        both = f"keys: [{{name: one, sha256: '{HASH}'}}, {{name: two, sha256: '{'cd' * 32}'}}]\n"
        written.write(f"{both}edge: {{queue_limit: 9}}\n")
        await hup(lambda: len(edge.snapshot.keys) == 2)
        assert edge.snapshot.policy.queue_limit == 9
        clash = "pools: [{name: a, engines: [{url: 'http://h:1'}, {url: 'http://h:1'}]}]\n"
        written.write(f"{clash}keys: []\n")
        await hup(lambda: "configuration not taken; nothing changed" in caplog.messages)
        assert len(edge.snapshot.keys) == 2
    assert caplog.messages.count("file taken anew") == 1


async def test_an_agent_watches_new_engines_at_once(written: File) -> None:
    async with local_engine() as first, local_engine() as second, TaskRunner() as tasks:
        engines = f"engines:\n- {{url: '{first.url}', name: r1}}\n"
        written.write(engines)
        stop = asyncio.Event()
        agents = tasks.once("agent", serve_until(stop, agent_args(written.argv)))
        await until(lambda: any(path == "/metrics" for _, path, _ in first.seen))
        written.write(f"{engines}- {{url: '{second.url}', name: r2}}\n")
        await hup(lambda: any(path == "/metrics" for _, path, _ in second.seen))
        stop.set()
        await agents

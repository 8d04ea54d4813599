"""`trimtab-agent drain`: an engine's service stops when it is empty."""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys

import aiohttp
import pytest

from tests.fakes.control_plane import FakeControlPlane
from tests.fakes.engines import sim_engine
from tests.fakes.wait import until
from tests.integration.test_agent_process import ROOT, start
from trimtab.model import EngineState


async def ask(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *words),
        cwd=ROOT,
        env={**os.environ},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30.0):
        _, said = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_a_drain_returns_when_the_engine_is_empty(tmp_path: pathlib.Path) -> None:
    control, at = FakeControlPlane(), str(tmp_path / "agent.sock")
    server = await control.start(f"unix:{tmp_path}/c.sock")
    async with sim_engine() as engine, aiohttp.ClientSession() as session:
        flags = ("--controlplane", f"unix:{tmp_path}/c.sock", "--node", "n1", "--socket", at)
        agent = await start(*flags, "--engine", engine.url)
        port = f":{engine.url.rsplit(':', 1)[1]}"
        replica = f"n1-{port[1:]}"
        await until(lambda: bool(control.samples(replica)), 20.0)
        body = {"model": "demo", "prompt": "on", "max_tokens": 150, "stream": True}
        async with session.post(f"{engine.url}/v1/completions", json=body) as answer:
            await answer.content.readline()
            draining = asyncio.ensure_future(ask("drain", port, "--socket", at))  # noqa: TID251
            await until(lambda: control.samples(replica)[-1].state is EngineState.DRAINING)
            assert not draining.done()
            assert b"[DONE]" in await answer.read()
        code, said = await draining
        assert (code, said.splitlines()[0], said.splitlines()[-1]) == (0, "has 1 requests", "empty")
        assert await ask("resume", replica, "--socket", at) == (0, "serves again\n")
        await until(lambda: control.samples(replica)[-1].state is EngineState.READY)
        code, said = await ask("drain", "gpu9", "--socket", at)
        assert (code, said) == (1, f"no replica gpu9 on this node; there is {replica}\n")
        agent.terminate()
        await agent.wait()
    await server.stop(None)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("drain", "gpu0", "--socket", "/nonexistent/a.sock"), 69, "no agent answers at"),
        (("drain", "gpu0", "--deadline", "soon"), 2, "usage:"),
    ],
)
async def test_what_cannot_be_done_is_said(words: tuple[str, ...], code: int, said: str) -> None:
    found, text = await ask(*words)
    assert found == code
    assert text.startswith(said)

"""Remediation under a real systemd and polkit: an agent without rights, and hung engines."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.e2e.systemd.box import Box, BoxError
from tests.e2e.systemd.test_units import LIMIT_S, shows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
ASKED = ("dbus.socket", "dbus.service", "polkit.service")
"""Whom systemctl asks for the right, where the caller is not root."""


async def ctl(box: Box, *words: str) -> str:
    command = ("/opt/trimtab/bin/trimtab-ctl", "--server", "unix:/run/trimtab/control.sock")
    return await asyncio.to_thread(box.run, *command, *words, check=False)


async def says(box: Box, words: str, *command: str) -> None:
    """Wait until ctl prints this."""
    async with asyncio.timeout(LIMIT_S):
        while words not in await ctl(box, *command):  # noqa: ASYNC110 - another process prints
            await asyncio.sleep(0.2)


async def first_steps(port: int) -> None:
    """In which an engine is given six times as long."""
    ask = {"model": "demo", "prompt": "hi", "max_tokens": 60, "ignore_eos": True}
    url = f"http://127.0.0.1:{port}/v1/completions"
    async with aiohttp.ClientSession() as http, http.post(url, json=ask) as answer:
        assert answer.status == 200


async def test_of_two_hung_engines_one_is_restarted_once_the_other_serves(box: Box) -> None:
    try:
        await asyncio.to_thread(box.start, *ASKED)
    except BoxError as error:
        pytest.skip(f"REMEDIATION IS NOT TESTED: no D-Bus and polkit here: {error}")

    await asyncio.gather(*(first_steps(port) for port in (8000, 8001)))
    first, second = [await shows(box, f"vllm@{n}", "MainPID") for n in (0, 1)]
    await asyncio.to_thread(box.run, "kill", "-STOP", first, second)
    await says(box, "0 others of its pool serve, 1 must", "explain", "replica", "box-8000")
    assert await shows(box, "vllm@0", "MainPID") == first
    await asyncio.to_thread(box.run, "kill", "-CONT", second)
    await says(box, "it serves again", "explain", "replica", "box-8000")
    assert await shows(box, "vllm@0", "MainPID") not in {first, "0"}
    assert await shows(box, "vllm@1", "MainPID") == second
    assert "restart engine" in await ctl(box, "audit")
    group = await shows(box, "vllm@0", "ControlGroup")
    left = await asyncio.to_thread(box.run, "cat", f"/sys/fs/cgroup{group}/cgroup.procs")
    assert first not in left.split()
    assert len(left.split()) == 2, "the engine and its worker, and none of the old ones"

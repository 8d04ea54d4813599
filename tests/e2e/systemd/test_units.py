"""The units under a real systemd: ready when serving, drained before they stop, never missed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from bench.kill.load import Load
from tests.e2e.systemd.box import UNITS, Box
from tests.e2e.systemd.conftest import CONFIG, ENGINES, ENGINES_KEY, KEY, SERVICES
from tests.fakes.wait import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
USERS = 24
LIMIT_S = 60.0


async def errors_under(box: Box, trouble: Callable[[], Awaitable[None]]) -> list[str]:
    """What users saw who asked before, while and after something happened."""
    load = Load(("http://127.0.0.1:4000/v1",), KEY, "demo")
    running = asyncio.ensure_future(load.run(USERS))  # noqa: TID251 - ends within the function
    await until(lambda: len(load.asks) >= USERS, LIMIT_S)
    await trouble()
    told = len(load.asks)
    await until(lambda: len(load.asks) >= told + USERS, LIMIT_S)
    load.stop()
    await running
    return [ask.error for ask in load.asks if ask.error]


async def shows(box: Box, unit: str, name: str) -> str:
    return await asyncio.to_thread(box.shows, unit, name)


async def changed(box: Box, unit: str, name: str, old: set[str]) -> None:
    """Wait until a property is none of these any more."""
    async with asyncio.timeout(LIMIT_S):
        while await shows(box, unit, name) in old:  # noqa: ASYNC110 - systemd tells no event here
            await asyncio.sleep(0.1)


async def test_everything_is_ready_when_it_serves_and_says_what_it_does(box: Box) -> None:
    for unit in (*ENGINES, *SERVICES):
        assert await shows(box, unit, "ActiveState") == "active"
    assert await shows(box, "trimtab-agent", "StatusText") == "watching 2 engines"
    assert "serving" in await shows(box, "trimtab-edge@1", "StatusText")

    async def nothing() -> None:
        """Just load."""

    assert await errors_under(box, nothing) == []


async def test_an_edge_is_exchanged_under_load_and_nobody_notices(box: Box) -> None:
    async def exchange() -> None:
        await asyncio.to_thread(box.start, "trimtab-edge@2")
        await asyncio.to_thread(box.run, "systemctl", "stop", "trimtab-edge@1")
        assert await shows(box, "trimtab-edge@1", "Result") == "success"

    assert await errors_under(box, exchange) == []


async def test_an_edge_whose_loop_stands_still_is_started_again(box: Box) -> None:
    await asyncio.to_thread(box.start, "trimtab-edge@2")
    frozen = await shows(box, "trimtab-edge@2", "MainPID")
    await asyncio.to_thread(box.run, "kill", f"-{signal.SIGSTOP}", frozen)
    before = await shows(box, "trimtab-edge@2", "NRestarts")
    await changed(box, "trimtab-edge@2", "NRestarts", {before})
    await asyncio.to_thread(box.start, "trimtab-edge@2")
    assert await shows(box, "trimtab-edge@2", "MainPID") != frozen


async def test_the_agent_outlives_its_engine_which_is_started_again(box: Box) -> None:
    agent = await shows(box, "trimtab-agent", "MainPID")
    engine = await shows(box, "vllm@0", "MainPID")

    async def kill() -> None:
        await asyncio.to_thread(box.run, "kill", "-9", engine)
        await changed(box, "vllm@0", "MainPID", {engine, "0"})

    assert await errors_under(box, kill) == []
    assert await shows(box, "trimtab-agent", "MainPID") == agent


async def test_an_engine_that_is_stopped_runs_empty_first_and_leaves_nothing_behind(
    box: Box,
) -> None:
    group = await shows(box, "vllm@1", "ControlGroup")

    async def stop() -> None:
        await asyncio.to_thread(box.run, "systemctl", "stop", "vllm@1")

    assert await errors_under(box, stop) == []
    assert "empty" in box.said()
    left = await asyncio.to_thread(
        box.run, "cat", f"/sys/fs/cgroup{group}/cgroup.procs", check=False
    )
    assert not left.strip()
    await asyncio.to_thread(box.start, "vllm@1")


async def test_no_secret_is_in_an_environment(box: Box) -> None:
    for unit in SERVICES:
        pid = await shows(box, unit, "MainPID")
        if pid not in {"", "0"}:
            found = await asyncio.to_thread(box.run, "cat", f"/proc/{pid}/environ")
            assert KEY not in found
            assert ENGINES_KEY not in found


async def test_a_reload_takes_the_file_anew_and_a_bad_one_changes_nothing(box: Box) -> None:
    units = ("trimtab-controlplane", "trimtab-agent", "trimtab-edge@1")
    path = "/etc/trimtab/trimtab.yaml"

    async def reload(text: str, told: str) -> None:
        await asyncio.to_thread(box.run, "sh", "-c", f"cat >{path} <<'END'\n{text}\nEND")
        pids = [await shows(box, unit, "MainPID") for unit in units]
        before = box.said().count(told)
        await asyncio.to_thread(box.run, "systemctl", "reload", *units)
        await until(lambda: box.said().count(told) >= before + len(units), LIMIT_S)
        assert pids == [await shows(box, unit, "MainPID") for unit in units]

    await reload(CONFIG.replace("drain_s: 60", "drain_s: long"), "configuration not taken")
    for unit in units:
        assert "drain_s: expected float" in await shows(box, unit, "StatusText")
        assert await shows(box, unit, "ActiveState") == "active"
    await reload(CONFIG.replace("drain_s: 60", "drain_s: 61"), "configuration reloaded")
    assert await shows(box, "trimtab-agent", "StatusText") == "watching 2 engines"
    await reload(CONFIG, "configuration reloaded")


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("trimtab-*.service")))
async def test_units_are_hardened(box: Box, unit: str) -> None:
    name = unit.replace("@.", "@1.")
    said = await asyncio.to_thread(
        box.run, "systemd-analyze", "security", "--threshold=25", name, check=False
    )
    assert "Overall exposure level" in said
    assert float(said.rsplit("level for", 1)[1].split(":")[1].split()[0]) <= 2.5


async def test_systemd_finds_nothing_wrong_with_any_unit(box: Box) -> None:
    names = [path.name for path in UNITS.iterdir() if path.suffix in {".service", ".socket"}]
    units = [f"/etc/systemd/system/{name}" for name in names]
    script = 'systemd-analyze verify "$@" 2>&1'
    said = await asyncio.to_thread(box.run, "sh", "-c", script, "sh", *units, check=False)
    assert [line for line in said.splitlines() if "trimtab" in line or "vllm" in line] == []

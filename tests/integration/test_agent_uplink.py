"""The stream to the control plane when that is slow, rude or newer than we are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import random
from collections.abc import AsyncIterator

import pytest

from agent.uplink import Uplink
from tests.fakes.control_plane import FakeControlPlane
from tests.fakes.wait import until
from trimtab.model import (
    AgentDirective,
    AgentMessage,
    Bye,
    EngineFacts,
    LimitSource,
    NodeHello,
    Refused,
    Report,
    SetReportPeriod,
)
from trimtab.runtime.tasks import TaskRunner

LARGE = "x" * 50_000  # a few of them fill what the wire buffers
FACTS = EngineFacts("a", "http://127.0.0.1:1", (), None, 1, LimitSource.ASSUMED)


class Source:
    """Counts the reports that were made."""

    def __init__(self) -> None:
        self.made = 0
        self.taken: list[AgentDirective] = []

    def opening(self) -> list[AgentMessage]:
        return [NodeHello("n1"), FACTS]

    def report(self) -> Report:
        self.made += 1
        return Report(self.made, gpu_detail=LARGE)

    def take(self, directive: AgentDirective) -> None:
        self.taken.append(directive)


@contextlib.asynccontextmanager
async def talking(target: str) -> AsyncIterator[tuple[Uplink, Source]]:
    uplink, source = Uplink(target, random.Random(1)), Source()
    async with TaskRunner() as tasks:
        tasks.forever("uplink", uplink.run(source))
        yield uplink, source


async def test_a_slow_listener_gets_the_newest_not_a_backlog(tmp_path: pathlib.Path) -> None:
    control = FakeControlPlane()
    target = f"unix:{tmp_path}/c.sock"
    server = await control.start(target)
    async with talking(target) as (uplink, source):
        await until(lambda: bool(control.all(EngineFacts)))
        control.listens.clear()
        for _ in range(1000):
            uplink.report_due()
            await asyncio.sleep(0)
        behind = source.made
        assert behind < 1000
        control.listens.set()
        uplink.report_due()
        await until(lambda: len(control.all(Report)) > behind)
        assert [report.seq for report in control.all(Report)] == list(range(1, source.made + 1))
    await server.stop(None)


async def test_goodbye(tmp_path: pathlib.Path) -> None:
    control = FakeControlPlane()
    target = f"unix:{tmp_path}/c.sock"
    server = await control.start(target)
    async with talking(target) as (uplink, _):
        await until(lambda: bool(control.all(EngineFacts)))
        await uplink.close("done")
        await until(lambda: control.all(Bye) == [Bye("done")])
    await server.stop(None)


async def test_goodbye_to_nobody_does_not_wait_for_ever(tmp_path: pathlib.Path) -> None:
    async with talking(f"unix:{tmp_path}/nobody.sock") as (uplink, source):
        await uplink.close("done")
    assert source.made == 0


async def test_directives_are_taken_in_order(tmp_path: pathlib.Path) -> None:
    control = FakeControlPlane()
    target = f"unix:{tmp_path}/c.sock"
    server = await control.start(target)
    async with talking(target) as (_, source):
        for directive in (SetReportPeriod(200), Refused("no")):
            control.tell(directive)
        await until(lambda: source.taken == [SetReportPeriod(200), Refused("no")])
    await server.stop(None)


async def test_ups_and_downs_are_logged_once_each(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent.uplink")
    target = f"unix:{tmp_path}/c.sock"
    control = FakeControlPlane()
    async with talking(target):
        await until(lambda: "control plane lost" in caplog.messages)
        server = await control.start(target)
        await until(lambda: control.streams == 1)
        await server.stop(None)
        server = await control.start(target)
        await until(lambda: control.streams == 2)
        await until(lambda: len(caplog.messages) >= 4)
    await server.stop(None)
    ups_and_downs = ["control plane lost", "control plane connected"] * 2
    assert caplog.messages[:4] == ups_and_downs

"""A control plane whose state is in etcd: any machine may go on with it."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from controlplane import main
from controlplane.config import EtcdConfig
from tests.fakes import etcd
from tests.fakes.peers import fake_agent, fake_edge
from tests.fakes.running_control_plane import config, running
from tests.fakes.wait import until
from trimtab.model import Serving
from trimtab.runtime.tasks import TaskRunner


async def test_another_machine_goes_on_with_the_fleet(tmp_path: pathlib.Path) -> None:
    with etcd.running(tmp_path / "etcd") as cluster:
        await cluster.ready()
        where = EtcdConfig(cluster.access(), "lab/")
        here, there = (tmp_path / name for name in ("here", "there"))
        here.mkdir()
        there.mkdir()
        async with (
            running(config(here, store=None, etcd=where)) as target,
            fake_agent(target) as agent,
            fake_edge(target) as edge,
        ):
            await agent.serve("r1")
            await edge.until_serving("r1", Serving.OPEN)
            before = edge.updates[-1]
        async with (
            running(config(there, store=None, etcd=where)) as target,
            fake_edge(target) as edge,
        ):
            await edge.until_serving("r1", Serving.OPEN)
            assert edge.updates[0].term > before.term


async def test_an_etcd_that_is_not_there_yet_is_waited_for(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with etcd.running(tmp_path / "etcd") as cluster:
        await cluster.ready()
        (node,) = cluster.nodes
        node.kill()
        where = EtcdConfig(cluster.access(), "lab/")
        stop = asyncio.Event()
        settings = config(tmp_path, store=None, etcd=where)
        async with TaskRunner() as runner:
            served = runner.once("control plane", main.serve_until(stop, settings))
            await until(lambda: "waiting for etcd" in caplog.text)
            node.start()
            async with fake_edge(settings.listen) as edge:
                await until(lambda: bool(edge.updates))
            stop.set()
            await served


async def test_who_waits_for_etcd_can_be_told_to_stop(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with etcd.running(tmp_path / "etcd") as cluster:
        where = EtcdConfig(cluster.access(), "lab/")
    stop = asyncio.Event()
    async with TaskRunner() as runner:
        served = runner.once(
            "control plane", main.serve_until(stop, config(tmp_path, store=None, etcd=where))
        )
        await until(lambda: "waiting for etcd" in caplog.text)
        stop.set()
        await served

"""A control plane whose state is in etcd: any machine may go on with it."""

from __future__ import annotations

import pathlib

import pytest

from controlplane.config import EtcdConfig
from tests.fakes import etcd
from tests.fakes.peers import fake_agent, fake_edge
from tests.fakes.running_control_plane import config, running
from trimtab.model import Serving
from trimtab.runtime.service import ConfigError


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


async def test_no_etcd_is_one_sentence(tmp_path: pathlib.Path) -> None:
    with etcd.running(tmp_path / "etcd") as cluster:
        where = EtcdConfig(cluster.access(), "lab/")
    with pytest.raises(ConfigError, match=f"^no connection to etcd at {cluster.urls[0]}$"):
        async with running(config(tmp_path, store=None, etcd=where)):
            pass

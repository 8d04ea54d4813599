"""The runbook for a stolen control plane: what its certificate can do before, and not after."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.fakes.closed_fleet import authority, closed_fleet, free_port, identity
from trimtab.runtime import join, rpc
from trimtab.runtime.certificates import Role
from trimtab.runtime.renewal import renew
from trimtab.runtime.tls import Identity

DEADLINE_S = 10.0


@contextlib.asynccontextmanager
async def impostor(by: Identity) -> AsyncIterator[str]:
    """Somebody who serves with a control plane's certificate."""
    target = f"127.0.0.1:{free_port()}"
    server = await rpc.serve(target, [], lambda _: None, by)
    try:
        yield target
    finally:
        await server.stop(None)


async def believes(member: Identity, target: str) -> bool:
    """Whether a member speaks to whoever is there."""
    async with rpc.channel(target, member) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            return error.code() is not grpc.StatusCode.UNAVAILABLE
    return True


async def test_after_the_runbook_a_stolen_control_plane_is_nobody(tmp_path: pathlib.Path) -> None:
    _ = authority(tmp_path / "cp-tls").introduce("cp2")
    shutil.copytree(tmp_path / "cp-tls", tmp_path / "stolen")
    stolen = Identity(tmp_path / "stolen")
    forged = identity(tmp_path / "forged", authority(tmp_path / "stolen"), Role.ADMIN, "eve")
    async with closed_fleet(tmp_path) as fleet, impostor(stolen) as wrong:
        members = [await fleet.member("agent", "n1"), await fleet.member("edge", "e1")]
        for member in (*members, forged):
            assert await believes(member, wrong)
            assert await believes(member, fleet.target)

    (tmp_path / "cp-tls").rename(tmp_path / "cp-tls.stolen")
    async with closed_fleet(tmp_path) as fleet, impostor(stolen) as wrong:
        for outsider in (*members, forged, stolen):
            assert not await believes(outsider, fleet.target)
        for member in members:
            token = await fleet.token(member.peer.role, member.peer.name)
            joined = await join.join(fleet.enroll, token, "")
            joined.save(member.directory)
            assert not await believes(member, wrong)
            assert await believes(member, fleet.target), "without a restart"
            await renew(member, fleet.target)
        with pytest.raises(grpc.aio.AioRpcError):
            await renew(stolen, fleet.target)

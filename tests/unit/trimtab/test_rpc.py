"""Serving and calling over both kinds of address."""

from __future__ import annotations

import pathlib
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from trimtab import codec
from trimtab.runtime import rpc
from trimtab.v1 import admin_pb2, admin_pb2_grpc
from trimtab.views import Fleet

NAME = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name


class Admin(admin_pb2_grpc.AdminServiceServicer):
    """Answers one call, refuses another."""

    async def GetFleet(  # noqa: N802  the contract's name
        self, request: admin_pb2.GetFleetRequest, context: Any
    ) -> admin_pb2.GetFleetResponse:
        """Name the fleet."""
        return admin_pb2.GetFleetResponse(fleet=codec.encode(Fleet(name="lab")))

    async def SetIntent(  # noqa: N802  the contract's name
        self, request: admin_pb2.SetIntentRequest, context: Any
    ) -> admin_pb2.SetIntentResponse:
        """Refuse."""
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such replica")
        raise AssertionError("abort raises")

    async def WatchFleet(  # noqa: N802  the contract's name
        self, request: admin_pb2.WatchFleetRequest, context: Any
    ) -> AsyncIterator[admin_pb2.WatchFleetResponse]:
        """Show it once."""
        yield admin_pb2.WatchFleetResponse(fleet=codec.encode(Fleet(name="lab")))

    async def ExplainReplica(  # noqa: N802  the contract's name
        self, request: admin_pb2.ExplainReplicaRequest, context: Any
    ) -> admin_pb2.ExplainReplicaResponse:
        """Nothing."""
        return admin_pb2.ExplainReplicaResponse()

    async def WatchEvents(  # noqa: N802  the contract's name
        self, request: admin_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[admin_pb2.WatchEventsResponse]:
        """Nothing."""
        yield admin_pb2.WatchEventsResponse()

    async def SaveState(  # noqa: N802  the contract's name
        self, request: admin_pb2.SaveStateRequest, context: Any
    ) -> AsyncIterator[admin_pb2.SaveStateResponse]:
        """Nothing."""
        yield admin_pb2.SaveStateResponse()

    async def RestoreState(  # noqa: N802  the contract's name
        self, request_iterator: AsyncIterator[admin_pb2.RestoreStateRequest], context: Any
    ) -> admin_pb2.RestoreStateResponse:
        """Nothing."""
        return admin_pb2.RestoreStateResponse()


def register(server: grpc.aio.Server) -> None:
    """Add the service."""
    admin_pb2_grpc.add_AdminServiceServicer_to_server(Admin(), server)


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    """Where to serve."""
    return f"unix:{tmp_path}/c.sock" if request.param == "unix" else f"127.0.0.1:{free_port()}"


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A served address and a channel to it."""
    server = await rpc.serve(address, [NAME], register)
    async with rpc.channel(address) as open_channel:
        yield open_channel
    await server.stop(0)


async def test_calls_and_refusals(channel: grpc.aio.Channel) -> None:
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    answer = await stub.GetFleet(admin_pb2.GetFleetRequest(), timeout=10)
    assert answer.fleet.name == "lab"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.SetIntent(admin_pb2.SetIntentRequest(), timeout=10)
    assert rpc.explain(error.value) == "not_found: no such replica"


@pytest.mark.parametrize("service", ["", NAME])
async def test_health(channel: grpc.aio.Channel, service: str) -> None:
    check = health_pb2_grpc.HealthStub(channel).Check
    answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    asks: Iterable[reflection_pb2.ServerReflectionRequest] = iter(
        [reflection_pb2.ServerReflectionRequest(list_services="")]
    )
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asks, timeout=10)
    names = [one.name async for a in call for one in a.list_services_response.service]
    assert {NAME, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == set(names)


async def test_a_busy_address_is_an_error_and_its_server_lives_on(
    channel: grpc.aio.Channel, address: str
) -> None:
    with pytest.raises(OSError, match="cannot listen on"):
        await rpc.serve(address, [NAME], register)
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    assert (await stub.GetFleet(admin_pb2.GetFleetRequest(), timeout=10)).fleet.name == "lab"
    async with rpc.channel(address) as second:
        again = admin_pb2_grpc.AdminServiceStub(second)
        assert (await again.GetFleet(admin_pb2.GetFleetRequest(), timeout=10)).fleet.name == "lab"


@pytest.mark.parametrize("address", ["unix:/nonexistent/c.sock", "not an address"])
async def test_an_impossible_address_is_an_error(address: str) -> None:
    with pytest.raises(OSError, match="cannot listen on"):
        await rpc.serve(address, [], register)


async def test_a_socket_that_its_server_left_behind_is_taken(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    server = await rpc.serve(f"unix:{path}", [NAME], register)
    async with rpc.channel(f"unix:{path}") as open_channel:
        stub = admin_pb2_grpc.AdminServiceStub(open_channel)
        assert (await stub.GetFleet(admin_pb2.GetFleetRequest(), timeout=10)).fleet.name == "lab"
    await server.stop(0)

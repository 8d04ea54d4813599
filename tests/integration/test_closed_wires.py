"""Who gets in and who does not, over real TLS on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
from collections.abc import AsyncIterable, AsyncIterator

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.fakes.closed_fleet import ClosedFleet, authority, closed_fleet, identity
from tests.fakes.dice import Loaded
from tests.fakes.keda import Keda
from tests.fakes.peers import FakeAgent, FakeEdge, fake_agent, fake_edge
from tests.fakes.running_control_plane import admin
from tests.fakes.wait import until
from trimtab.model import Serving
from trimtab.runtime import certificates, clock, join, rpc, tls
from trimtab.runtime.certificates import Role
from trimtab.runtime.renewal import keep_renewed, renew
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner
from trimtab.runtime.tls import Identity
from trimtab.v1 import admin_pb2, admin_pb2_grpc, identity_pb2, identity_pb2_grpc

DEADLINE_S = 30.0


@pytest.fixture
async def fleet(tmp_path: pathlib.Path) -> AsyncIterator[ClosedFleet]:
    async with closed_fleet(tmp_path) as running:
        yield running


async def get_fleet(target: str, by: Identity | None) -> list[str]:
    """The replicas, as an operator sees them."""
    async with rpc.channel(target, by) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        answer = await stub.GetFleet(admin_pb2.GetFleetRequest(), timeout=DEADLINE_S)
    return [view.route.replica for view in answer.fleet.replicas]


async def code_of(target: str, by: Identity | None) -> grpc.StatusCode:
    """What an operator is told who may not."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await get_fleet(target, by)
    return caught.value.code()


async def last_of(watch: AsyncIterable[object]) -> None:
    """Read it to its end."""
    async for _ in watch:
        pass


async def ended(peer: FakeAgent | FakeEdge) -> tuple[grpc.StatusCode, str]:
    """How a peer's stream ended."""
    await until(lambda: peer.error is not None)
    assert peer.error is not None
    return peer.error.code(), peer.error.details() or ""


async def test_join_report_renew_revoke(fleet: ClosedFleet) -> None:
    agent_id, edge_id = await fleet.member("agent", "n1"), await fleet.member("edge", "e1")
    admin_id = await fleet.member("admin", "ada")
    async with (
        fake_agent(fleet.target, "n1", identity=agent_id) as agent,
        fake_edge(fleet.target, "e1", identity=edge_id) as edge,
    ):
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        assert await get_fleet(fleet.target, admin_id) == ["r1"]
        assert await get_fleet(fleet.settings.admin_socket, None) == ["r1"]

        before = agent_id.peer
        await renew(agent_id, fleet.target)
        assert (agent_id.peer.name, agent_id.peer.role) == ("n1", Role.AGENT)
        assert agent_id.peer.serial != before.serial
        async with rpc.channel(fleet.target, agent_id) as channel:
            await channel.channel_ready()

        assert await fleet.revoke("n1") == 2, "the old certificate as well"
        assert await ended(agent) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "the certificate of n1 was revoked",
        )
        async with admin(fleet.settings.admin_socket) as stub:
            asked = admin_pb2.ExplainReplicaRequest(replica="r1")
            why = (await stub.ExplainReplica(asked)).explanation.headline
        assert "it was turned away: the certificate of n1 was revoked" in why
        async with fake_agent(fleet.target, "n1", identity=agent_id) as again:
            assert (await ended(again))[0] is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError, match="was revoked"):
            await renew(agent_id, fleet.target)
        assert edge.error is None
        assert await fleet.revoke("n1") == 0, "again is no error"


async def test_a_revoked_watcher_is_shown_nothing_more(fleet: ClosedFleet) -> None:
    admin_id = await fleet.member("admin", "ada")
    async with rpc.channel(fleet.target, admin_id) as channel:
        watch = admin_pb2_grpc.AdminServiceStub(channel).WatchFleet(admin_pb2.WatchFleetRequest())
        await anext(aiter(watch))
        await fleet.revoke(admin_id.peer.serial)
        with pytest.raises(grpc.aio.AioRpcError, match="was revoked"):
            await asyncio.wait_for(last_of(watch), DEADLINE_S)


async def test_what_was_revoked_is_out_from_the_first_moment_after_a_restart(
    tmp_path: pathlib.Path,
) -> None:
    async with closed_fleet(tmp_path) as fleet:
        admin_id = await fleet.member("admin", "ada")
        await fleet.revoke("ada")
    async with closed_fleet(tmp_path) as fleet:
        assert await code_of(fleet.target, admin_id) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_does_not_outlive_its_certificate(fleet: ClosedFleet) -> None:
    short = fleet.outsider(Role.AGENT, "n1", life_s=4.0)
    async with fake_agent(fleet.target, "n1", identity=short) as agent:
        assert await ended(agent) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "the certificate of n1 has expired",
        )
    assert short.peer.not_after_s <= clock.wall_s()
    assert await code_of(fleet.target, short) is grpc.StatusCode.UNAVAILABLE, "in the handshake"


async def test_strangers_get_no_connection(fleet: ClosedFleet, tmp_path: pathlib.Path) -> None:
    other = authority(tmp_path / "other")
    stranger = identity(tmp_path / "stranger", other, Role.ADMIN, "eve")
    tls.write(stranger.directory / tls.CA, (tmp_path / "cp-tls" / tls.CA).read_bytes())
    assert await code_of(fleet.target, stranger) is grpc.StatusCode.UNAVAILABLE
    assert await code_of(fleet.target, None) is grpc.StatusCode.UNAVAILABLE


async def test_clients_believe_a_control_plane_only(
    fleet: ClosedFleet, tmp_path: pathlib.Path
) -> None:
    """A member's certificate does not make a server, though the authority is the right one."""
    agent_id = fleet.outsider(Role.AGENT, "n1")
    address = fleet.target.rpartition(":")[0] + ":0"
    server = grpc.aio.server()
    port = server.add_secure_port(address, agent_id.server_credentials())
    await server.start()
    assert await code_of(f"127.0.0.1:{port}", fleet.outsider(Role.ADMIN, "ada")) is (
        grpc.StatusCode.UNAVAILABLE
    )
    await server.stop(0)


@pytest.mark.parametrize("role", Role)
async def test_each_role_has_its_services(
    fleet: ClosedFleet, role: Role, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    member = fleet.outsider(role, "n1")
    refused = set()
    async with fake_agent(fleet.target, "n1", identity=member) as agent:
        if role is Role.AGENT:
            await agent.serve("r1")
            await until(lambda: bool(agent.directives) or agent.error is None)
        else:
            assert (await ended(agent))[0] is grpc.StatusCode.PERMISSION_DENIED
            refused.add(Role.AGENT)
    async with fake_edge(fleet.target, "n1", identity=member) as edge:
        if role is Role.EDGE:
            await until(lambda: bool(edge.updates))
        else:
            assert (await ended(edge))[0] is grpc.StatusCode.PERMISSION_DENIED
            refused.add(Role.EDGE)
    if role is Role.ADMIN:
        await get_fleet(fleet.target, member)
    else:
        assert await code_of(fleet.target, member) is grpc.StatusCode.PERMISSION_DENIED
        async with rpc.channel(fleet.target, member) as channel:
            stub = identity_pb2_grpc.NodeServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError, match="is for admin, not for"):
                await stub.CreateToken(identity_pb2.CreateTokenRequest(role="admin"))
        refused.add(Role.ADMIN)
    assert refused == {Role.AGENT, Role.EDGE, Role.ADMIN} - {role}
    async with rpc.channel(fleet.target, member) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as asked:
            await Keda(channel, {"model": "no such"}).targets()
    may_ask = asked.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert may_ask is (role not in {Role.AGENT, Role.EDGE})
    await renew(member, fleet.target)
    told = [record for record in caplog.records if record.getMessage() == "call refused"]
    assert len(told) == 1, "once a peer and minute"


async def test_nobody_speaks_for_another(fleet: ClosedFleet) -> None:
    agent_id, edge_id = await fleet.member("agent", "n1"), await fleet.member("edge", "e1")
    async with fake_agent(fleet.target, "n2", identity=agent_id) as agent:
        assert await ended(agent) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "the certificate is for n1, not for n2",
        )
    async with fake_edge(fleet.target, "e2", identity=edge_id) as edge:
        assert (await ended(edge))[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_a_token_counts_once(fleet: ClosedFleet) -> None:
    token = await fleet.token("agent")
    answers = await asyncio.gather(
        *(join.join(fleet.enroll, token, f"n{i}") for i in range(4)), return_exceptions=True
    )
    joined = [answer for answer in answers if isinstance(answer, join.Membership)]
    assert len(joined) == 1
    with pytest.raises(ConfigError, match="used, taken back, expired or wrong"):
        await join.join(fleet.enroll, token, "n9")
    async with fleet.nodes() as nodes:
        assert not (await nodes.ListTokens(identity_pb2.ListTokensRequest())).tokens
        (one,) = (await nodes.ListIdentities(identity_pb2.ListIdentitiesRequest())).identities
    assert (one.name, one.serial) == (joined[0].peer.name, joined[0].peer.serial)


async def test_a_stolen_token_makes_nobody_else(fleet: ClosedFleet) -> None:
    token = await fleet.token("agent", "n1")
    with pytest.raises(ConfigError, match="this token is for the name n1"):
        await join.join(fleet.enroll, token, "n2")
    assert (await join.join(fleet.enroll, token, "")).peer.name == "n1"

    free = await fleet.token("agent")
    with pytest.raises(ConfigError, match="the fleet has agent n1 already"):
        await join.join(fleet.enroll, free, "n1")
    await fleet.revoke("n1")
    assert (await join.join(fleet.enroll, free, "", "n1")).peer.name == "n1"


async def test_tokens_end_and_can_be_taken_back(fleet: ClosedFleet) -> None:
    taken = await fleet.token("edge", "e1")
    async with fleet.nodes() as nodes:
        (view,) = (await nodes.ListTokens(identity_pb2.ListTokensRequest())).tokens
        assert (view.role, view.name) == ("edge", "e1")
        await nodes.RevokeToken(identity_pb2.RevokeTokenRequest(id=view.id))
        with pytest.raises(grpc.aio.AioRpcError, match="there is no token"):
            await nodes.RevokeToken(identity_pb2.RevokeTokenRequest(id=view.id))
        for fields, text in (
            ({"role": "controlplane", "ttl_ms": 3_600_000}, "role must be one of"),
            ({"role": "agent", "ttl_ms": 59_999}, "60 s to 7 days"),
            ({"role": "agent", "ttl_ms": 3_600_000, "name": "a/b"}, "a name has 1 to 128"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=text):
                await nodes.CreateToken(identity_pb2.CreateTokenRequest(**fields))  # type: ignore[arg-type]
        with pytest.raises(grpc.aio.AioRpcError, match="there is no certificate"):
            await nodes.RevokeIdentities(identity_pb2.RevokeIdentitiesRequest(name_or_serial="x"))
    with pytest.raises(ConfigError, match="used, taken back, expired or wrong"):
        await join.join(fleet.enroll, taken, "")


async def test_a_token_of_another_fleet_is_not_shown_to_this_one(
    fleet: ClosedFleet, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = await fleet.token()
    other = token[:-64] + authority(tmp_path / "other").pin
    with pytest.raises(ConfigError, match="belongs to another fleet than the token"):
        await join.join(fleet.enroll, other, "n1")
    assert "join refused" not in caplog.text
    assert (await join.join(fleet.enroll, token, "n1")).peer.name == "n1"


async def test_guessing_ends_soon_and_is_told_once_without_the_token(
    fleet: ClosedFleet, caplog: pytest.LogCaptureFixture
) -> None:
    token = await fleet.token()
    wrong = token[:21] + ("0" if token[21] != "0" else "1") + token[22:]  # of the secret
    seen = set()
    for _ in range(12):
        with pytest.raises(ConfigError) as caught:
            await join.join(fleet.enroll, wrong, "n1")
        seen.add(str(caught.value).rpartition(": ")[2])
    assert seen == {"used, taken back, expired or wrong", "wait a minute"}
    told = [record for record in caplog.records if record.getMessage() == "join refused"]
    assert len(told) == 1
    shown = str([vars(record) for record in caplog.records])
    assert wrong[21:85] not in shown
    assert token not in shown


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"token": 1}', 400),
        (b"\xff" * 100, 400),
        (b'{"token": "tt-join-", "csr": ""}', 403),
        (b'{"token": "' + b"x" * 20_000 + b'"}', 413),
    ],
)
async def test_what_is_no_join_request_is_refused(
    fleet: ClosedFleet, body: bytes, status: int
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"https://{fleet.enroll}/v1/join", data=body, ssl=False) as answer,
    ):
        assert answer.status == status


async def test_the_agent_and_the_edge_renew_by_themselves(fleet: ClosedFleet) -> None:
    """Two thirds of a life that began five minutes ago are over at once."""
    agent_id = fleet.outsider(Role.AGENT, "n1", life_s=100.0)
    before = agent_id.peer.serial
    async with TaskRunner() as runner:
        dead = f"127.0.0.1:{1}"
        runner.forever("renewal", keep_renewed(agent_id, [dead, fleet.target], Loaded(0.0)))
        await until(lambda: agent_id.peer.serial != before)
    assert agent_id.peer.not_after_s > clock.wall_s() + 86_400
    assert agent_id.peer.name == "n1"


async def test_the_server_shows_its_newest_certificate(fleet: ClosedFleet) -> None:
    """Replacing the authority: new connections are judged by what is in the files now."""
    admin_id = fleet.outsider(Role.ADMIN, "ada")
    assert await get_fleet(fleet.target, admin_id) == []
    directory = fleet.root / "cp-tls"
    second = authority(fleet.root / "second")
    first = (directory / tls.CA).read_bytes()
    tls.write(directory / tls.CA, first + second.bundle)
    late = identity(fleet.root / "late", second, Role.ADMIN, "bob")
    tls.write(late.directory / tls.CA, first)
    assert await get_fleet(fleet.target, late) == []
    tls.write(directory / tls.CA, first)
    assert await code_of(fleet.target, late) is grpc.StatusCode.UNAVAILABLE


async def test_a_signing_request_decides_nothing_but_the_key(fleet: ClosedFleet) -> None:
    from tests.fakes.hostile_requests import asking_for_admin  # noqa: PLC0415

    agent_id = await fleet.member("agent", "n1")
    async with rpc.channel(fleet.target, agent_id) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        answer = await stub.Renew(identity_pb2.RenewRequest(csr=asking_for_admin()))
        peer = certificates.read_peer(answer.certificate)
        assert (peer.role, peer.name) == (Role.AGENT, "n1")
        for csr in (b"", b"junk", b"x" * 10_000):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Renew(identity_pb2.RenewRequest(csr=csr))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_files_that_went_bad_do_not_stop_who_has_good_ones(
    fleet: ClosedFleet, caplog: pytest.LogCaptureFixture
) -> None:
    admin_id = await fleet.member("admin", "ada")
    key = admin_id.directory / tls.KEY
    key.chmod(0o644)
    with contextlib.suppress(ConfigError):
        Identity(admin_id.directory)
        pytest.fail("a fresh start must refuse it")
    for _ in range(3):
        assert await get_fleet(fleet.target, admin_id) == []
    assert len([r for r in caplog.records if "keeping the old" in r.getMessage()]) == 1


async def test_health_is_for_all_who_are_in_and_reflection_for_operators(
    fleet: ClosedFleet,
) -> None:
    agent_id, admin_id = fleet.outsider(Role.AGENT, "n1"), fleet.outsider(Role.ADMIN, "ada")
    async with rpc.channel(fleet.target, agent_id) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=""))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="is for admin, not for agent"):
            await services(channel)
    async with rpc.channel(fleet.target, admin_id) as channel:
        assert "trimtab.v1.NodeService" in await services(channel)
    async with rpc.channel(fleet.settings.admin_socket) as channel:
        assert "trimtab.v1.IdentityService" in await services(channel)


async def services(channel: grpc.aio.Channel) -> list[str]:
    """What a server says it has."""
    asks = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asks)
    return [one.name async for a in call for one in a.list_services_response.service]

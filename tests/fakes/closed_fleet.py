"""A control plane behind TLS, and what it takes to be let in, for tests of closed wires."""

from __future__ import annotations

import contextlib
import pathlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from controlplane.authority import CA_KEY, Authority, Issued
from controlplane.config import ControlConfig, TlsConfig
from tests.fakes.running_control_plane import config, running
from trimtab.runtime import certificates, join, rpc, tls
from trimtab.runtime.certificates import Role
from trimtab.runtime.tls import Identity
from trimtab.v1 import identity_pb2 as pb
from trimtab.v1 import identity_pb2_grpc

LIFE_S = 7 * 86_400.0


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def authority(directory: pathlib.Path, life_s: float = LIFE_S) -> Authority:
    """An authority in a directory, made if there is none."""
    directory.mkdir(exist_ok=True)
    return Authority(directory, "test fleet", ("cp.example", "10.0.0.1"), life_s)


def identity(directory: pathlib.Path, by: Authority, role: Role, name: str) -> Identity:
    """A member's files, signed without asking anybody."""
    key = certificates.new_key()
    issued = by.sign(certificates.signing_request(key), role, name)
    return save(directory, by, issued, key)


def save(directory: pathlib.Path, by: Authority, issued: Issued, key: bytes) -> Identity:
    """Write what was issued, and use it."""
    join.Membership(issued.peer, by.bundle, issued.certificate, key).save(directory)
    return Identity(directory)


@dataclass(frozen=True, slots=True)
class ClosedFleet:
    """Where everything is."""

    root: pathlib.Path
    settings: ControlConfig

    @property
    def target(self) -> str:
        """The control plane's TCP address."""
        return self.settings.listen

    @property
    def enroll(self) -> str:
        """Where to join."""
        assert self.settings.tls is not None
        return self.settings.tls.enroll

    @contextlib.asynccontextmanager
    async def nodes(self) -> AsyncIterator[identity_pb2_grpc.NodeServiceStub]:
        """The operator's side, over root's socket."""
        async with rpc.channel(self.settings.admin_socket) as channel:
            yield identity_pb2_grpc.NodeServiceStub(channel)

    async def token(self, role: str = "agent", name: str = "", ttl_s: float = 3600.0) -> str:
        """A token."""
        request = pb.CreateTokenRequest(role=role, name=name, ttl_ms=round(ttl_s * 1000))
        async with self.nodes() as nodes:
            return (await nodes.CreateToken(request)).token

    async def member(self, role: str = "agent", name: str = "n1") -> Identity:
        """Somebody who joined."""
        joined = await join.join(self.enroll, await self.token(role), name)
        directory = self.root / f"{role}-{name}"
        joined.save(directory)
        return Identity(directory)

    async def revoke(self, name_or_serial: str) -> int:
        """How many were shut out."""
        request = pb.RevokeIdentitiesRequest(name_or_serial=name_or_serial)
        async with self.nodes() as nodes:
            return len((await nodes.RevokeIdentities(request)).identities)

    def outsider(self, role: Role, name: str, life_s: float = LIFE_S) -> Identity:
        """One signed by this fleet's authority that the store has never heard of."""
        by = authority(self.root / "cp-tls", life_s)
        return identity(self.root / f"outsider-{role}-{name}", by, role, name)


@contextlib.asynccontextmanager
async def closed_fleet(root: pathlib.Path, **changes: Any) -> AsyncIterator[ClosedFleet]:
    """Run it for the length of the block."""
    directory = root / "cp-tls"
    enroll = f"127.0.0.1:{free_port()}"
    settings = config(
        root,
        listen=f"127.0.0.1:{free_port()}",
        admin_socket=f"unix:{root}/control.sock",
        tls=TlsConfig(
            directory=directory,
            fleet="test fleet",
            name="cp1",
            names=("cp.example", "10.0.0.1"),
            enroll=enroll,
            enroll_url=enroll,
            **{"life_s": LIFE_S, **changes},
        ),
    )
    async with running(settings):
        assert (directory / CA_KEY).stat().st_mode & tls.OTHERS == 0
        yield ClosedFleet(root, settings)

"""gRPC as every binary uses it: channel and server options, certificates, health and reflection.

A frozen peer keeps its TCP connection open; only HTTP/2 pings with their own timeout notice it
(about 6 s with these options), and a server must allow such pings.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:  # only who has a certificate pays for the import
    from trimtab.runtime.tls import Identity

MESSAGE_LIMIT_BYTES = 16 * 1024 * 1024
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.so_reuseport", 0),  # else two servers share a port in silence
)
Register = Callable[[grpc.aio.Server], None]


def channel(target: str, identity: Identity | None = None) -> grpc.aio.Channel:
    """A channel: mutual TLS where there is an identity, but a unix socket is plain."""
    options = (
        *OPTIONS,
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 2_000),  # how long a host that says nothing is tried
        ("grpc.max_reconnect_backoff_ms", 2_000),
    )
    if identity is None or target.startswith("unix:"):
        return grpc.aio.insecure_channel(target, options=options)
    from trimtab.runtime.tls import CLIENT_OPTIONS  # noqa: PLC0415

    credentials = identity.channel_credentials()
    return grpc.aio.secure_channel(target, credentials, options=(*options, *CLIENT_OPTIONS))


async def serve(
    address: str,
    names: Sequence[str],
    register: Register,
    identity: Identity | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    socket_beside: str = "",
) -> grpc.aio.Server:
    """Start a server on `address`; raises OSError when it can't be bound.

    `names` are the full service names, for health and reflection; with an identity the callers
    need certificates; `socket_beside` is a unix socket for those who need none.
    """
    # 50 ms that only servers pay: `ctl` starts in half of its time without them.
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # noqa: PLC0415
    from grpc_reflection.v1alpha import reflection  # noqa: PLC0415

    addresses = [address, *[socket_beside] * bool(socket_beside)]
    for each in addresses:
        _refuse_if_served(each)
    server = grpc.aio.server(options=OPTIONS, interceptors=interceptors)
    register(server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    for each in addresses:
        _bind(server, each, identity)
    await server.start()
    for name in ("", *names):
        await status.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server


def _bind(server: grpc.aio.Server, address: str, identity: Identity | None) -> None:
    try:
        if identity is None or address.startswith("unix:"):
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, identity.server_credentials())
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from None
    if not bound:
        raise OSError(f"cannot listen on {address}")


def _refuse_if_served(address: str) -> None:
    """gRPC takes a unix socket away from whoever serves it, in silence: look first."""
    if not address.startswith("unix:"):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address.removeprefix("unix:").removeprefix("//"))
        except (FileNotFoundError, ConnectionRefusedError):
            return  # nobody, or a socket that its server left behind
    raise OSError(f"cannot listen on {address}: another process serves it")


def explain(error: grpc.aio.AioRpcError) -> str:
    """A gRPC error in one line for a log or a person."""
    return f"{error.code().name.lower()}: {error.details() or 'no detail'}"

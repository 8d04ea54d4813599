"""Taking the public address; the operators' is the status page's (trimtab/runtime/page).

Rules: a socket that the manager holds for us goes before our own (trimtab/runtime/activation); an
address that can't be had is one sentence.
"""

from __future__ import annotations

import asyncio
import socket

from edge.config import EdgeConfig
from edge.http.server import Server
from trimtab.runtime import activation
from trimtab.runtime.listener_tls import ListenerTls
from trimtab.runtime.service import ConfigError

BACKLOG = 1_024
HANDSHAKE_LIMIT_S = 10.0  # a caller that never ends its TLS handshake
SOCKET_OPTIONS = (  # what a listener has its connections inherit: a host that vanished while its
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),  # answer is made is noticed after a minute
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


async def public(server: Server, config: EdgeConfig, tls: ListenerTls | None) -> asyncio.Server:
    """Take the port, without serving yet. Raises ConfigError."""
    handed = activation.inherited()
    place = {"sock": handed} if handed else {"host": config.host, "port": config.port}
    try:
        listening = await asyncio.get_running_loop().create_server(
            server,
            **place,
            backlog=BACKLOG,
            reuse_port=(config.shares_port and not handed) or None,
            start_serving=False,
            ssl=tls.context if tls else None,
            ssl_handshake_timeout=HANDSHAKE_LIMIT_S if tls else None,
        )
    except OSError as error:
        where = f"cannot listen on {config.host}:{config.port}"
        raise ConfigError(f"{where}: {error.strerror or error}") from error
    for taken in listening.sockets:
        for option in SOCKET_OPTIONS if taken.family != socket.AF_UNIX else ():
            taken.setsockopt(*option)
    return listening

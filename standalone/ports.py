"""Can we listen there? Asked before anything starts, so that the answer is one sentence."""

from __future__ import annotations

import errno
import os
import socket

from trimtab.runtime import shapes
from trimtab.runtime.service import ConfigError

_REASONS = {
    errno.EADDRINUSE: "another program listens there",
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "not an address of this machine",
}


def require_free(address: str, flag: str) -> None:
    """Raise ConfigError unless we could listen at HOST:PORT."""
    host, port = shapes.split_address(address)
    if port == 0:
        raise ConfigError(f"{flag} {address}: name a port, so that clients can find it")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, _, _, place in found:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
    except socket.gaierror:
        raise ConfigError(f"{flag} {address}: no such host") from None
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, os.strerror(error.errno or 0))
        raise ConfigError(
            f"cannot listen on {address}: {reason}: free it, or give another {flag} HOST:PORT"
        ) from None


def free_port() -> int:
    """A port of loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port

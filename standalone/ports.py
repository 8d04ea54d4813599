"""Can we listen there? Asked before anything starts, so that the answer is one sentence."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Callable

from trimtab.runtime import shapes
from trimtab.runtime.service import ConfigError

_SPAN = 100
_marks: list[socket.socket] = []
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


def free_from(first: int, count: int) -> list[int]:
    """The first free ports of loopback at or above one; raises ConfigError.

    The same ones again and again, below those that the kernel hands out: what was known of them
    before a restart stays true, and no client's socket takes one between now and their use.
    """
    return _find(first, count, _is_free)


def claim(first: int, count: int) -> list[int]:
    """The same, kept from every other `trimtab up` of this machine until this one ends.

    An engine listens minutes after its port was found; till then another one would find it free.
    """
    return _find(first, count, lambda port: _is_free(port) and _mark(port))


def _find(first: int, count: int, take: Callable[[int], bool]) -> list[int]:
    free = list(itertools.islice(filter(take, range(first, first + _SPAN)), count))
    if len(free) < count:
        raise ConfigError(f"no {count} free ports on 127.0.0.1:{first}-{first + _SPAN - 1}")
    return free


def _mark(port: int) -> bool:
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0trimtab-port-{port}")  # abstract: gone with us, however we end
    except OSError:
        mark.close()
        return False
    _marks.append(mark)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

"""The listening end of sd_notify(3): what children say about themselves."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

STATUS_LIMIT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Notice:
    """One datagram."""

    ready: bool = False
    status: str = ""


def parse(datagram: bytes) -> Notice:
    """Read a datagram; what we don't know is left out, as sd_notify(3) demands."""
    lines = datagram.decode(errors="replace").splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    status = "".join(c for c in fields.get("STATUS", "") if c.isprintable())
    return Notice(fields.get("READY") == "1", status[:STATUS_LIMIT_CHARACTERS])


class _Receiver(asyncio.DatagramProtocol):
    """Hands every datagram on."""

    def __init__(self, take: Callable[[Notice], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Called by the loop."""
        self._take(parse(data))


@contextlib.asynccontextmanager
async def listen(path: pathlib.Path, take: Callable[[Notice], None]) -> AsyncIterator[None]:
    """Receive notices at `path` for the length of the block."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Receiver(take), sock=_bind(path))
    try:
        yield
    finally:
        transport.close()


def _bind(path: pathlib.Path) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(str(path))
    return sock

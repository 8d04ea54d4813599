"""The last snapshot on disk, so that an edge that restarts serves without a control plane.

Rules: one file, replaced atomically, readable by its owner only; it holds key hashes, never keys;
an unreadable one is as good as none. Older than a day it is not used (static stability, AWS).
"""

from __future__ import annotations

import os
import pathlib

from google.protobuf.message import DecodeError

from edge.core.table import RoutingTable
from trimtab.codec import WireError, decode_update, encode_update
from trimtab.model import Credits, EdgeUpdate, Snapshot
from trimtab.runtime import clock
from trimtab.v1 import edge_pb2

AGE_LIMIT_S = 86_400.0
SIZE_LIMIT_BYTES = 64 * 1024 * 1024


def render(table: RoutingTable) -> bytes:
    """The file's content for what the table holds now: two updates, each after its length."""
    bodies = (table.snapshot, Credits(tuple(table.credits.values())))
    updates = [encode_update(EdgeUpdate(table.term, table.version, 0, body)) for body in bodies]
    parts = [update.SerializeToString() for update in updates]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def save(path: pathlib.Path, content: bytes) -> None:
    """Replace the file; raises OSError. Blocking: call it in a thread."""
    scratch = path.with_suffix(".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def restore(path: pathlib.Path, table: RoutingTable) -> bool:
    """Fill an empty table from the file; whether there was one to trust."""
    try:
        stat = path.stat()
        if stat.st_size > SIZE_LIMIT_BYTES or clock.wall_s() - stat.st_mtime > AGE_LIMIT_S:
            return False
        first, rest = _take(path.read_bytes())
        second, _ = _take(rest)
    except (OSError, WireError, DecodeError):
        return False
    if not isinstance(first.body, Snapshot) or not isinstance(second.body, Credits):
        return False
    table.restore(first.term, first.body, second.body)
    return table.ready


def _take(data: bytes) -> tuple[EdgeUpdate, bytes]:
    end = 4 + int.from_bytes(data[:4], "big")
    return decode_update(edge_pb2.EdgeUpdate.FromString(data[4:end])), data[end:]

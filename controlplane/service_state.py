"""The stored state over the wire: out as one revision, in as a whole or not at all.

Rules: what comes in is bounded and checked to its end before anything changes; a stream that broke
off is told from a whole one by the number of records it announced. A stream is read to its end
before it is refused: gRPC's asyncio client takes its own failing write for the call's end, and says
"internal" in place of the status that it was sent (grpc/aio/_call.py, `_write`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from controlplane import contents, guard
from controlplane.core.audit import Deed
from controlplane.core.bounds import clip
from controlplane.core.records import ROOT
from controlplane.loop import ControlLoop
from controlplane.migrations import SchemaError
from controlplane.seat import Seat
from controlplane.store.protocol import VALUE_LIMIT_BYTES, StoreError, check_key
from trimtab.codec import encode
from trimtab.v1 import admin_pb2
from trimtab.views import StateRecord

STATE_LIMIT_BYTES = 256 * 1024 * 1024  # 10,000 replicas take 10 MiB
Context = grpc.aio.ServicerContext[Any, Any]
Requests = AsyncIterator[admin_pb2.RestoreStateRequest]
log = logging.getLogger("controlplane.state")


async def save(loop: ControlLoop, context: Context) -> AsyncIterator[admin_pb2.SaveStateResponse]:
    """See the proto."""
    try:
        header, records = await loop.saved()
    except StoreError as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"not saved: {error}")
    except SchemaError as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    yield admin_pb2.SaveStateResponse(header=encode(header))
    for batch in contents.batches(sorted(records.items())):
        parts = [encode(StateRecord(key, value or b"")) for key, value in batch]
        yield admin_pb2.SaveStateResponse(records=parts)


async def restore(
    seat: Seat, requests: Requests, context: Context
) -> admin_pb2.RestoreStateResponse:
    """See the proto."""
    try:
        order, records = await _collect(requests)
        loop = await seat.loop_or_refuse(context)
        asked = guard.order(order.actor, order.reason)
        deed = Deed(asked, "restore", "snapshot", "", f"{len(records)} records")
        done = await loop.restore(records, deed, preview=order.preview)
    except ValueError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"nothing was changed: {error}")
    except SchemaError as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"nothing was changed: {error}")
    except StoreError as error:
        text = f"not restored, or only in part: {error}; restore it again"
        await context.abort(grpc.StatusCode.UNAVAILABLE, text)
    counts = {"added": done.added, "changed": done.changed, "removed": done.removed}
    if not order.preview:
        words = {"actor": clip(deed.order.actor), "reason": clip(deed.order.reason)}
        log.warning("state restored", extra={"fields": {**words, **counts}})
    return admin_pb2.RestoreStateResponse(**counts, fleet=loop.fleet().name)


async def _collect(requests: Requests) -> tuple[admin_pb2.RestoreStateRequest, dict[str, bytes]]:
    """The first message and all records; ValueError when they are not a whole state."""
    first: admin_pb2.RestoreStateRequest | None = None
    problem: ValueError | None = None
    records: dict[str, bytes] = {}
    size_bytes = 0
    async for request in requests:
        first = first or request
        size_bytes += request.ByteSize()
        if size_bytes > STATE_LIMIT_BYTES:
            raise ValueError(f"a state holds at most {STATE_LIMIT_BYTES} bytes")
        try:
            _add(records, request)
        except ValueError as error:
            problem = problem or error
    if problem:
        raise problem
    if first is None or len(records) != first.expected:
        expected = first.expected if first else "some"
        raise ValueError(f"{expected} records were announced and {len(records)} came")
    if not first.actor:
        raise ValueError("actor must say who asks")
    return first, records


def _add(records: dict[str, bytes], request: admin_pb2.RestoreStateRequest) -> None:
    for record in request.records:
        _check(record)
        if record.key in records:
            raise ValueError(f"the key {clip(record.key)!r} comes twice")
        records[record.key] = record.value


def _check(record: admin_pb2.StateRecord) -> None:
    if not record.key.startswith(ROOT):
        raise ValueError(f"the key {clip(record.key)!r} does not begin with {ROOT}")
    check_key(record.key)
    if len(record.value) > VALUE_LIMIT_BYTES:
        raise ValueError(f"{clip(record.key)}: a value holds at most {VALUE_LIMIT_BYTES} bytes")

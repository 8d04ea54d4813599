"""The store of several control planes: a corner of an etcd cluster, behind the protocol.

Rules: every key of ours begins with the prefix, which callers never see; a transaction is sent
once; a watch goes on over lost connections for as long as its history is there. etcd's history is
trimmed by etcd's own --auto-compaction, and its clock ends the leases.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from asyncio import InvalidStateError, sleep
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from itertools import groupby
from typing import Self

from controlplane.store.etcd_client import (
    CALL_DEADLINE_S,
    PAGE_ENTRIES,
    Access,
    Client,
    Metadata,
    Node,
    UnreachableError,
)
from controlplane.store.etcdpb import rpc_pb2
from controlplane.store.protocol import (
    Absent,
    Change,
    Compare,
    Entry,
    Event,
    LeaseLostError,
    Listing,
    Op,
    Put,
    RevisionIs,
    TxnResult,
    ValueIs,
    check_branch,
    check_key,
    check_txn,
    prefix_end,
)
from trimtab.runtime.backoff import Backoff

NEVER_A_REVISION = -1
log = logging.getLogger("controlplane.store")


class EtcdStore:
    """Implements `controlplane.store.protocol.Store` on etcd."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix.encode()

    @classmethod
    async def open(cls, access: Access, prefix: str) -> Self:
        """Connect and see what is there; raises StoreError. The prefix ends with a slash."""
        client = Client(access)
        store = cls(client, prefix)
        try:
            await client.check_versions()
            await store.get("any")  # may we?
        except BaseException:
            await client.close()
            raise
        return store

    async def get(self, key: str) -> Entry | None:
        """See the protocol."""
        check_key(key)
        answer = await self._range(rpc_pb2.RangeRequest(key=self._key(key)))
        return self._entry(answer.kvs[0]) if answer.kvs else None

    async def range(self, prefix: str) -> Listing:
        """See the protocol."""
        start, end = self._under(prefix)
        request = rpc_pb2.RangeRequest(key=start, range_end=end, limit=PAGE_ENTRIES)
        page = await self._range(request)
        request.revision = page.header.revision  # all pages as of this one
        found = [self._entry(kv) for kv in page.kvs]
        while page.more:
            request.key = page.kvs[-1].key + b"\0"
            page = await self._range(request)
            found += [self._entry(kv) for kv in page.kvs]
        return Listing(tuple(found), request.revision)

    async def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op] = ()
    ) -> TxnResult:
        """See the protocol."""
        check_txn(compares, (*successes, *failures))
        check_branch(successes)
        check_branch(failures)
        request = rpc_pb2.TxnRequest(
            compare=[self._compare(compare) for compare in compares],
            success=[self._op(op) for op in successes],
            failure=[self._op(op) for op in failures],
        )

        async def send(node: Node, metadata: Metadata) -> rpc_pb2.TxnResponse:
            return await node.kv.Txn(request, timeout=CALL_DEADLINE_S, metadata=metadata)

        answer = await self._client.call(send, repeatable=False)
        return TxnResult(answer.succeeded, answer.header.revision)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Change]:
        """See the protocol."""
        following = from_revision
        backoff = Backoff(random.SystemRandom(), first_s=0.05, cap_s=1.0)
        lost = False
        while True:
            try:
                async with contextlib.aclosing(self._responses(prefix, following)) as responses:
                    async for response in responses:
                        backoff.reset()
                        if lost:
                            log.info("the watch goes on", extra={"fields": {"at": following}})
                            lost = False
                        for change in self._changes(response, following):
                            following = change.revision + 1
                            yield change
                        if not (response.events or response.created):  # progress
                            following = max(following, response.header.revision + 1)
            except UnreachableError as error:
                if not lost:
                    fields = {"error": str(error), "at": following}
                    log.warning("the watch is cut off; it will go on", extra={"fields": fields})
                lost = True
            await sleep(backoff.next_s())

    async def grant(self, ttl_s: float) -> int:
        """See the protocol."""
        request = rpc_pb2.LeaseGrantRequest(TTL=math.ceil(ttl_s))

        async def send(node: Node, metadata: Metadata) -> rpc_pb2.LeaseGrantResponse:
            return await node.lease.LeaseGrant(request, timeout=CALL_DEADLINE_S, metadata=metadata)

        # A lease that was made and not heard of has no keys and ends by itself.
        return (await self._client.call(send, repeatable=True)).ID

    async def keepalive(self, lease: int) -> None:
        """See the protocol."""
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease)

        async def send(node: Node, metadata: Metadata) -> rpc_pb2.LeaseKeepAliveResponse:
            call = node.lease.LeaseKeepAlive(timeout=CALL_DEADLINE_S, metadata=metadata)
            try:
                with contextlib.suppress(InvalidStateError):  # reading says why
                    await call.write(request)
                answer = await call.read()
            finally:
                call.cancel()
            if not isinstance(answer, rpc_pb2.LeaseKeepAliveResponse):
                raise UnreachableError(f"etcd {node.url}: a keepalive was not answered")
            return answer

        if (await self._client.call(send, repeatable=True)).TTL <= 0:
            raise LeaseLostError(f"{self._client.name}: lease {lease} is over")

    async def revoke(self, lease: int) -> None:
        """See the protocol."""
        request = rpc_pb2.LeaseRevokeRequest(ID=lease)

        async def send(node: Node, metadata: Metadata) -> rpc_pb2.LeaseRevokeResponse:
            return await node.lease.LeaseRevoke(request, timeout=CALL_DEADLINE_S, metadata=metadata)

        await self._client.call(send, repeatable=False)

    async def close(self) -> None:
        """See the protocol."""
        await self._client.close()

    async def _range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        async def send(node: Node, metadata: Metadata) -> rpc_pb2.RangeResponse:
            return await node.kv.Range(request, timeout=CALL_DEADLINE_S, metadata=metadata)

        return await self._client.call(send, repeatable=True)

    async def _responses(
        self, prefix: str, following: int
    ) -> AsyncGenerator[rpc_pb2.WatchResponse, None]:
        """Whole answers of one stream: a revision may come in parts."""
        start, end = self._under(prefix)
        request = rpc_pb2.WatchCreateRequest(
            key=start,
            range_end=end,
            # One more than asked for: etcd before 3.4.34 and 3.5.15 is silent about a key that
            # was deleted by just the revision up to which it was compacted.
            start_revision=max(1, following - 1),
            progress_notify=True,
            fragment=True,
        )
        parts: list[rpc_pb2.Event] = []
        async with contextlib.aclosing(self._client.watch(request)) as stream:
            async for response in stream:
                parts += response.events
                if not response.fragment:
                    del response.events[:]
                    response.events.extend(parts)
                    parts = []
                    yield response

    def _changes(self, response: rpc_pb2.WatchResponse, following: int) -> Iterator[Change]:
        for revision, group in groupby(response.events, lambda event: event.kv.mod_revision):
            if revision >= following:
                yield Change(revision, tuple(map(self._event, group)))

    def _event(self, event: rpc_pb2.Event) -> Event:
        deleted = event.type == rpc_pb2.Event.DELETE
        return Event(self._name(event.kv), None if deleted else event.kv.value)

    def _entry(self, kv: rpc_pb2.KeyValue) -> Entry:
        return Entry(self._name(kv), kv.value, kv.mod_revision, kv.lease)

    def _name(self, kv: rpc_pb2.KeyValue) -> str:
        """The key as callers know it; what a stranger left in our corner must not stop us."""
        return kv.key.removeprefix(self._prefix).decode(errors="backslashreplace")

    def _key(self, key: str) -> bytes:
        return self._prefix + key.encode()

    def _under(self, prefix: str) -> tuple[bytes, bytes]:
        start = self._key(prefix)
        return start, prefix_end(start) or b"\0"

    def _compare(self, compare: Compare) -> rpc_pb2.Compare:
        key = self._key(compare.key)
        match compare:
            case Absent():
                return rpc_pb2.Compare(target=rpc_pb2.Compare.VERSION, key=key, version=0)
            case ValueIs(value=value):
                return rpc_pb2.Compare(target=rpc_pb2.Compare.VALUE, key=key, value=value)
            case RevisionIs(mod_revision=revision):
                # etcd takes 0 for "no such key", where we mean that it never holds
                return rpc_pb2.Compare(
                    target=rpc_pb2.Compare.MOD, key=key, mod_revision=revision or NEVER_A_REVISION
                )

    def _op(self, op: Op) -> rpc_pb2.RequestOp:
        key = self._key(op.key)
        if isinstance(op, Put):
            put = rpc_pb2.PutRequest(key=key, value=op.value, lease=op.lease)
            return rpc_pb2.RequestOp(request_put=put)
        return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))

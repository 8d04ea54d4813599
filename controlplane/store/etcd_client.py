"""Calls to an etcd cluster: which member to ask, how long to wait, who we are.

Rules: each endpoint has a channel of its own, so that each proves its own name; one of them is
asked, and the next one from the first failure on. A request leaves on a connection that stands, so
a member that is simply gone costs nothing; what was sent and not answered is sent again only if it
may be repeated, once, elsewhere. Every failure is a StoreError that names the endpoint; none holds
a password or a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

import grpc

from controlplane.store.etcdpb import rpc_pb2, rpc_pb2_grpc
from controlplane.store.protocol import (
    KEY_LIMIT_BYTES,
    VALUE_LIMIT_BYTES,
    CompactedError,
    LeaseLostError,
    StoreError,
)
from trimtab.runtime import rpc

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
CALL_DEADLINE_S = 1.0
CONNECT_DEADLINE_S = 0.5
TRIES = 2  # of what may be repeated; so the longest silence is twice the deadline
PAGE_ENTRIES = 128
# etcd takes a ping every 5 s at most, and ends connections that ping more often.
OPTIONS = (
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # a page of the largest entries
    (
        "grpc.max_receive_message_length",
        PAGE_ENTRIES * (VALUE_LIMIT_BYTES + 2 * KEY_LIMIT_BYTES),
    ),
)
# The member's trouble rather than the request's: another member may do better.
_ELSEWHERE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
# etcd refused the token before it looked at the request, which may therefore be sent again.
_TOKEN_REFUSED = re.compile("invalid auth token|revision of auth store is old|user name is empty")
log = logging.getLogger("controlplane.store")


class UnreachableError(StoreError):
    """No member answered, or one fell silent: later, or elsewhere, it may work."""


class UnsafeVersionError(StoreError):
    """This etcd is known to lose what it acknowledged."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the cluster is and how to get in."""

    endpoints: tuple[str, ...]
    username: str = ""
    password: str = field(default="", repr=False)
    ca: bytes | None = field(default=None, repr=False)
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    allow_unsafe_version: bool = False


class Node:
    """One endpoint: its channel and stubs."""

    def __init__(self, url: str, access: Access) -> None:
        self.url = url
        parts = urlsplit(url)
        if parts.scheme == "https":
            credentials = grpc.ssl_channel_credentials(access.ca, access.key, access.cert)
            self.channel = grpc.aio.secure_channel(parts.netloc, credentials, OPTIONS)
        else:
            self.channel = grpc.aio.insecure_channel(parts.netloc, OPTIONS)
        self.kv = rpc_pb2_grpc.KVStub(self.channel)
        self.watch = rpc_pb2_grpc.WatchStub(self.channel)
        self.lease = rpc_pb2_grpc.LeaseStub(self.channel)
        self.auth = rpc_pb2_grpc.AuthStub(self.channel)
        self.maintenance = rpc_pb2_grpc.MaintenanceStub(self.channel)

    async def connected(self) -> bool:
        """Whether there is a connection, or soon was one."""
        ready, failed = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                while (state := self.channel.get_state(try_to_connect=True)) is not ready:
                    if state is failed:
                        return False
                    await self.channel.wait_for_state_change(state)
                return True
        return False


Send = Callable[[Node, Metadata], Awaitable[T]]


class Client:
    """A cluster as one thing to ask."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._nodes = [Node(url, access) for url in access.endpoints]
        self._current = 0
        self._token = ""
        self._signing_in = asyncio.Lock()
        self._closed = False
        self.name = f"etcd at {', '.join(node.url for node in self._nodes)}"

    async def check_versions(self) -> None:
        """Refuse a cluster that may lose writes; raises UnreachableError when nobody answers."""
        answers = await asyncio.gather(*map(self._status, self._nodes), return_exceptions=True)
        silent = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(silent) == len(answers):
            raise silent[0]
        for node, answer in zip(self._nodes, answers, strict=True):
            if isinstance(answer, str) and is_unsafe(answer):
                self._refuse(node, answer)

    async def call(self, send: Send[T], *, repeatable: bool) -> T:
        """The answer of whoever gives one."""
        tries = TRIES
        while True:
            tries -= 1
            node = await self._connected()
            try:
                return await self._ask(node, send)
            except UnreachableError:
                self._leave(node)
                if not (repeatable and tries):
                    raise

    async def watch(
        self, request: rpc_pb2.WatchCreateRequest
    ) -> AsyncGenerator[rpc_pb2.WatchResponse, None]:
        """What one stream says from its beginning, without end; raises StoreError."""
        node = await self._connected()
        try:
            with self._errors(node):
                # A token that is over would look like a lack of rights here: take a new one.
                token = await self._sign_in(node, self._token)
                # `hasleader`: a member that lost the others ends the stream rather than go quiet.
                call = node.watch.Watch(metadata=(*token, ("hasleader", "true")))
                try:
                    with contextlib.suppress(asyncio.InvalidStateError):  # reading says why
                        await call.write(rpc_pb2.WatchRequest(create_request=request))
                    async with asyncio.timeout(CALL_DEADLINE_S):
                        response = await call.read()
                    while True:
                        yield _checked(node, response)
                        response = await call.read()
                finally:
                    call.cancel()
        except UnreachableError:
            self._leave(node)
            raise

    async def close(self) -> None:
        """Let go; whoever waits gets a StoreError."""
        self._closed = True
        for node in self._nodes:
            await node.channel.close()

    async def _connected(self) -> Node:
        for _ in self._nodes:
            if self._closed:
                break
            node = self._nodes[self._current]
            if await node.connected():
                return node
            self._leave(node)
        if self._closed:
            raise StoreError(f"the store, {self.name}, is closed")
        raise UnreachableError(f"no connection to {self.name}")

    def _leave(self, node: Node) -> None:
        """Ask the next one from now on; unless that was decided already."""
        if self._nodes[self._current] is node:
            self._current = (self._current + 1) % len(self._nodes)

    async def _ask(self, node: Node, send: Send[T]) -> T:
        with self._errors(node):
            token = self._token
            try:
                metadata = _metadata(token) if token else await self._sign_in(node, token)
                return await send(node, metadata)
            except grpc.aio.AioRpcError as error:
                if not (token and _TOKEN_REFUSED.search(error.details() or "")):
                    raise
            return await send(node, await self._sign_in(node, token))

    async def _sign_in(self, node: Node, old_token: str) -> Metadata:
        """A token newer than the one given; proving a password costs etcd 0.1 s, so one asks."""
        if not self._access.username:
            return ()
        async with self._signing_in:
            if self._token == old_token:
                request = rpc_pb2.AuthenticateRequest(
                    name=self._access.username, password=self._access.password
                )
                answer = await node.auth.Authenticate(request, timeout=CALL_DEADLINE_S)
                self._token = answer.token
            return _metadata(self._token)

    @contextlib.contextmanager
    def _errors(self, node: Node) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._explained(node, error) from None
        except TimeoutError:
            raise UnreachableError(f"etcd {node.url}: no answer") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task and not task.cancelling():  # by our close(), not our caller
                raise StoreError(f"the store, {self.name}, is closed") from None
            raise

    def _explained(self, node: Node, error: grpc.aio.AioRpcError) -> StoreError:
        text = f"etcd {node.url}: {rpc.explain(error)}"
        if self._closed:
            return StoreError(f"the store, {self.name}, is closed")
        if "lease not found" in text:
            return LeaseLostError(text)
        if "has been compacted" in text:
            return CompactedError(text)
        return UnreachableError(text) if error.code() in _ELSEWHERE else StoreError(text)

    async def _status(self, node: Node) -> str:
        if not await node.connected():
            raise UnreachableError(f"no connection to {self.name}")
        request = rpc_pb2.StatusRequest()
        answer = await self._ask(
            node,
            lambda at, metadata: at.maintenance.Status(
                request, timeout=CALL_DEADLINE_S, metadata=metadata
            ),
        )
        return answer.version

    def _refuse(self, node: Node, version: str) -> None:
        text = (
            f"etcd {node.url} is version {version}; before 3.4.22, and from 3.5.0 to 3.5.5, etcd"
            " can lose what it acknowledged (etcd-io/etcd#13766)"
        )
        if not self._access.allow_unsafe_version:
            raise UnsafeVersionError(
                f"{text}: use a newer one, or allow it with etcd.allow_unsafe_version: true"
            )
        log.warning(text)


def is_unsafe(version: str) -> bool:
    """Whether a server of this version can lose writes that it acknowledged."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    number = tuple(map(int, match.groups())) if match else (0, 0, 0)
    return number < (3, 4, 22) or (3, 5, 0) <= number < (3, 5, 6)


def _checked(node: Node, response: object) -> rpc_pb2.WatchResponse:
    """The answer, unless it is the stream's end or the watch's."""
    if not isinstance(response, rpc_pb2.WatchResponse):
        raise UnreachableError(f"etcd {node.url}: ended a watch")
    if response.compact_revision:
        first = response.compact_revision
        raise CompactedError(f"etcd {node.url}: history before revision {first} is gone")
    if response.canceled:
        text = f"etcd {node.url}: no watch: {response.cancel_reason or 'no reason given'}"
        raise StoreError(text) if response.created else UnreachableError(text)
    return response


def _metadata(token: str) -> Metadata:
    return (("token", token),)

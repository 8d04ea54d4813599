"""Who ran what under which Idempotency-Key, over all workers of one edge.

Each key belongs to one worker, by its hash. The others ask that one over a unix socket what came of
the request, or for the turn to run it, and tell on the same connection what came of that.
Rules: one Ask, one Reply, then one Ran from whom has got the turn; a connection that ends before
that means that nothing came of it. A worker that can't be asked is done without: who asked keeps
what he runs himself. The sockets are for processes of the same user.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import msgspec

from edge.core.replay import ANSWER_MAX_BYTES, Answer, Found, Replays
from trimtab.runtime import clock

FRAME_MAX_BYTES = ANSWER_MAX_BYTES + 64 * 1024
GRACE_S = 1.0  # more than it was told to take: it is not well
_LENGTH_BYTES = 4
T = TypeVar("T")


class Ask(msgspec.Struct):
    """What became of this request, or what will, within that time?"""

    key: bytes
    request: bytes
    within_s: float


class Reply(msgspec.Struct):
    """The answer that there is, else what is known; NOTHING is the turn to run it."""

    found: Found
    answer: Answer | None = None


class Ran(msgspec.Struct):
    """What came of it; None when nothing did that is worth to be kept."""

    answer: Answer | None = None


class Turn(NamedTuple):
    """What to do with a request; if that is to run it (NOTHING), `ended` must be called."""

    found: Found | Answer
    ended: Callable[[Answer | None], None]


class Ledger:
    """What one worker keeps."""

    def __init__(self) -> None:
        self._replays = Replays()
        self._runs: dict[bytes, asyncio.Event] = {}

    async def claim(self, ask: Ask) -> Turn:
        """RUNNING when another one still runs after all that time."""
        found: Found | Answer = Found.RUNNING
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ask.within_s):
                while True:
                    found = self._replays.look(ask.key, ask.request, clock.now_s())
                    if found is not Found.RUNNING:
                        break
                    await self._runs[ask.key].wait()
        if found is Found.NOTHING:
            self._runs[ask.key] = asyncio.Event()
        return Turn(found, partial(self._ended, ask.key))

    def _ended(self, key: bytes, answer: Answer | None) -> None:
        self._replays.ended(key, answer, clock.now_s())
        self._runs.pop(key).set()


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of one edge: their sockets in order, and which of them this process is."""

    sockets: Sequence[pathlib.Path] = ()
    own: int = 0


class Ledgers:
    """Of all workers; this one's alone until it is told of others."""

    def __init__(self) -> None:
        self._own = Ledger()
        self._workers = Workers()

    async def claim(self, key: bytes, request: bytes, within_s: float) -> Turn:
        """What to do with a request."""
        ask, workers = Ask(key, request, within_s), self._workers
        if workers.sockets:
            owner = int.from_bytes(key) % len(workers.sockets)
            if owner != workers.own:
                with contextlib.suppress(OSError, EOFError, msgspec.DecodeError):
                    async with asyncio.timeout(within_s + GRACE_S):
                        return await _claim_there(workers.sockets[owner], ask)
        return await self._own.claim(ask)

    @asynccontextmanager
    async def shared(self, workers: Workers) -> AsyncIterator[None]:
        """Be asked by the others, if there are any, and ask them."""
        if not workers.sockets:
            yield
            return
        path = workers.sockets[workers.own]
        server = await asyncio.start_unix_server(self._hear, path)
        path.chmod(0o600)
        self._workers = workers
        try:
            yield
        finally:
            server.close()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, msgspec.DecodeError):
            turn = await self._own.claim(await _receive(reader, Ask))
            found, answer = turn.found, None
            try:
                if isinstance(found, Answer):
                    writer.write(_frame(Reply(Found.NOTHING, found)))
                else:
                    writer.write(_frame(Reply(found)))
                if found is Found.NOTHING:
                    answer = (await _receive(reader, Ran)).answer
            finally:
                if found is Found.NOTHING:
                    turn.ended(answer)
        writer.close()


async def _claim_there(path: pathlib.Path, ask: Ask) -> Turn:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(_frame(ask))
        reply = await _receive(reader, Reply)
    except BaseException:
        writer.close()
        raise

    def ended(answer: Answer | None) -> None:
        writer.write(_frame(Ran(answer)))
        writer.close()

    if reply.answer is not None or reply.found is not Found.NOTHING:
        writer.close()
    return Turn(reply.answer or reply.found, ended)


def _frame(message: msgspec.Struct) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES) + body


async def _receive(reader: asyncio.StreamReader, kind: type[T]) -> T:
    length_bytes = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
    if length_bytes > FRAME_MAX_BYTES:
        raise EOFError("a frame that is too long")
    return msgspec.msgpack.decode(await reader.readexactly(length_bytes), type=kind)

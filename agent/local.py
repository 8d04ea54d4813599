"""What this node's own service manager may ask of the agent, over a unix socket: drain an engine.

`trimtab-agent drain REPLICA`, the ExecStop of an engine's unit, returns once the engine is empty,
so that stopping its service breaks no request. Rules: the socket's mode lets in whoever runs as the
agent, and root; a line of JSON asks, lines of JSON answer until the last has "done" or "error"; who
hangs up has not taken the wish back: that is `resume`, or the engine's next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from agent.core.leaving import Leaving
from agent.watch import EngineWatch
from trimtab.runtime import clock
from trimtab.runtime.service import ConfigError

LINE_LIMIT_BYTES = 4_096
ASK_LIMIT_S = 5.0
TELL_PERIOD_S = 0.5
CALLERS_MAX = 64
log = logging.getLogger("agent.local")


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """What is wanted."""

    replica: str
    """Its name, or its port as :8000."""
    drain: bool = True
    """False: serve again."""


class Answer(msgspec.Struct, omit_defaults=True):
    """How it stands."""

    work: int | None = None
    """Requests that the engine still has; None: it does not say."""
    done: bool = False
    error: str = ""


class Local:
    """Answers on the socket."""

    def __init__(self, watches: Mapping[str, EngineWatch]) -> None:
        self._watches = watches
        self._callers = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One caller, to its end."""
        self._callers += 1
        try:
            with contextlib.suppress(OSError):
                async for answer in self._answers(reader):
                    writer.write(msgspec.json.encode(answer) + b"\n")
                    await writer.drain()
        finally:
            self._callers -= 1
            writer.close()

    async def _answers(self, reader: asyncio.StreamReader) -> AsyncIterator[Answer]:
        if self._callers > CALLERS_MAX:
            yield Answer(error=f"{CALLERS_MAX} callers wait already")
            return
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                ask = msgspec.json.decode(await reader.readline(), type=Ask)
        except TimeoutError:
            yield Answer(error=f"no question came in {ASK_LIMIT_S:.0f} s")
            return
        except ValueError as error:  # msgspec's are, too
            yield Answer(error=f"not a question: {error}")
            return
        named = [watch for name, watch in self._watches.items() if ask.replica in {name, watch.at}]
        watch = named[0] if named else None
        if watch is None:
            known = ", ".join(sorted(self._watches))
            yield Answer(error=f"no replica {ask.replica} on this node; there is {known}")
            return
        log.info("asked on this node", extra={"fields": msgspec.to_builtins(ask)})
        if not ask.drain:
            watch.leaving = None
            yield Answer(done=True)
            return
        if watch.leaving is None:
            watch.leaving = Leaving(clock.now_s())
        while (leaving := watch.leaving) is not None:
            if watch.is_given_up or leaving.empty(clock.now_s()):
                yield Answer(work=0, done=True)
                return
            yield Answer(work=leaving.work)
            await asyncio.sleep(TELL_PERIOD_S)
        yield Answer(error="it serves again: resumed, or another start")


@asynccontextmanager
async def listening(path: str, watches: Mapping[str, EngineWatch]) -> AsyncIterator[None]:
    """Answer at `path` for the length of the block; nothing at all when it is empty.

    Raises ConfigError.
    """
    if not path:
        yield
        return
    server = await asyncio.start_unix_server(
        Local(watches).answer, sock=_bind(path), limit=LINE_LIMIT_BYTES
    )
    try:
        yield
    finally:
        server.close()
        os.unlink(path)


def _bind(path: str) -> socket.socket:
    """For its owner only; one agent is on a node, so what is there is a leftover."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return listener

"""The network between an edge and one engine: a relay that can reset, garble, hold and delay.

Rules: only connections that begin with a POST, the edge's and the probes', have trouble: what an
agent reads is on its own machine. When nothing listens behind it, it does not listen either.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

_CHUNK_BYTES = 65_536
_DELAY_S = 0.3
_RESETS = 3
_GARBLED_RATIO = 0.05  # of what comes at once


class Wire:
    """One of them; `how` is the trouble it has now, empty for none."""

    def __init__(self, port: int, engine_port: int, dice: random.Random) -> None:
        self.how = ""
        self._port = port
        self._engine_port = engine_port
        self._dice = dice
        self._passes = asyncio.Event()
        self._passes.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    def close(self) -> None:
        """Refuse new connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    def reset(self) -> None:
        """Cut every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def trouble(self, how: str, lasts_s: float) -> None:
        """Have it for so long."""
        if how == "reset":
            for _ in range(_RESETS):
                self.reset()
                await asyncio.sleep(lasts_s / _RESETS)
            return
        self.how = how
        if how == "hold":
            self._passes.clear()
        await asyncio.sleep(lasts_s)
        self.how = ""
        self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        ended = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*ended):  # nobody else waits for this task
            first = await reader.readexactly(4)
            there, back = await asyncio.open_connection("127.0.0.1", self._engine_port)
            self._writers.add(back)
            back.write(first)
            sick = first == b"POST"
            with contextlib.suppress(BaseExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    _ = group.create_task(self._pump(reader, back, sick, lambda data: data))
                    _ = group.create_task(self._pump(there, writer, sick, self._garbled))
            self._end(back)
        self._end(writer)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        sick: bool,
        change: Callable[[bytes], bytes],
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if sick:
                await self._passes.wait()
                if self.how == "delay":
                    await asyncio.sleep(_DELAY_S)
                if self.how == "garble":
                    data = change(data)
            writer.write(data)
            await writer.drain()
        await asyncio.sleep(0.05)  # let what was written go out
        raise ConnectionResetError("one side has ended")

    def _garbled(self, data: bytes) -> bytes:
        """Sometimes no HTTP. Wrong bytes in the right frame are not for an edge to see: it relays
        what an engine says as it comes.
        """
        return data if self._dice.random() > _GARBLED_RATIO else self._dice.randbytes(len(data))

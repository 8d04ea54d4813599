"""What all connections of a listener have in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from edge.alarm import Watch
from edge.core.problems import Problem
from edge.http.connection import Connection
from edge.http.request import Request
from edge.http.response import Response
from trimtab.runtime.tasks import TaskRunner

Handle = Callable[[Request], Awaitable[Response]]
Refuse = Callable[[Problem], Response]


class Server:
    """A factory of protocols for asyncio's `create_server`."""

    def __init__(self, handle: Handle, refuse: Refuse, tasks: TaskRunner) -> None:
        self.handle = handle
        self.refuse = refuse
        self.tasks = tasks
        self.connections: set[Connection] = set()
        self.watch = Watch()
        self.retiring = False
        """Whether a connection ends with the answer to what it has asked."""
        self._empty = asyncio.Event()

    def __call__(self) -> Connection:
        """For a new connection."""
        return Connection(self)

    def lost(self, connection: Connection) -> None:
        """It is closed."""
        self.connections.discard(connection)
        if self.retiring and not self.connections:
            self._empty.set()

    async def retire(self, within_s: float) -> None:
        """Answer what was asked, for so long at most; who asks nothing is let go at once.

        The listener is closed by then, so callers come back to whoever has the address next.
        """
        self.retiring = True
        for connection in list(self.connections):
            connection.retire()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._empty.wait()


@asynccontextmanager
async def serving(handle: Handle, refuse: Refuse) -> AsyncIterator[Server]:
    """Until the block ends; then connections are cut, with whatever runs.

    `handle` answers requests, `refuse` what never became one.
    """
    async with TaskRunner() as tasks:
        server = Server(handle, refuse, tasks)
        try:
            yield server
        finally:
            for connection in list(server.connections):
                connection.abort()

"""What all connections of a listener have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from edge.core.problems import Problem
from edge.http.connection import Connection
from edge.http.request import Request
from edge.http.response import Response
from trimtab.runtime.tasks import TaskRunner


class Server:
    """A factory of protocols for asyncio's `create_server`."""

    def __init__(
        self,
        handle: Callable[[Request], Awaitable[Response]],
        refuse: Callable[[Problem], Response],
        tasks: TaskRunner,
    ) -> None:
        """`refuse` answers what never became a request; requests run in `tasks`."""
        self.handle = handle
        self.refuse = refuse
        self.tasks = tasks
        self.connections: set[Connection] = set()

    def __call__(self) -> Connection:
        """For a new connection."""
        return Connection(self)

    def abort(self) -> None:
        """End all connections, with whatever runs."""
        for connection in list(self.connections):
            connection.abort()

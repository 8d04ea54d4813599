"""One request as it came.

Rules: names of headers are in small letters, several of one name are one list (RFC 9110, 5.3);
`path` is decoded and has no query; what the edge finds out about a request is kept on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from edge.core.headers import Journey
from edge.core.replay import Recording
from edge.http.body import Body
from edge.http.writer import Writer
from trimtab.model import ApiKey

QUERY_FIELDS_MAX = 64


class Request:
    """The head; `body` is read from, `writer` is answered by."""

    __slots__ = (
        *("body", "caller", "hand_over", "headers", "journey", "method", "path", "recording"),
        *("target", "writer"),
    )
    journey: Journey
    """What its answer says about it."""
    caller: ApiKey
    """Whose it is, once that is known."""

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], body: Body, writer: Writer
    ) -> None:
        self.method = method
        self.target = target
        """As it stands in the request line."""
        self.path = _path(target)
        self.headers = headers
        self.body = body
        self.writer = writer
        self.recording: Recording | None = None
        """Keeps what is answered, if that may be asked for again."""
        self.hand_over: Callable[[asyncio.Protocol], None] | None = None
        """Gives the connection away, if a WebSocket is asked for."""

    @property
    def query(self) -> Mapping[str, str]:
        """What follows the path; the first of each name, nothing of what can't be read."""
        text = self.target.partition("#")[0].partition("?")[2]
        try:
            fields = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
        except ValueError:
            return {}
        return dict(reversed(fields))


def _path(target: str) -> str:
    if not target.startswith("/"):
        try:
            target = urlsplit(target).path or "/"
        except ValueError:
            return target
    path = target.partition("?")[0].partition("#")[0]
    return unquote(path) if "%" in path else path

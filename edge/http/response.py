"""An answer, and the bytes of its head.

Rules: header names are in small letters; how long a body is and whether the connection goes on is
said by the writer alone; no value can end its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from trimtab.runtime import clock


@dataclass(slots=True)
class Response:
    """A whole answer, or the beginning of a stream."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    closes: bool = False
    """Whether the connection ends with it."""
    is_out: bool = False
    """Whether its head was sent: changes come too late."""
    code: str = ""
    """What a problem is called."""


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """The status line and headers."""
    date = _date(int(clock.wall_s()))
    fields = [f"{name}: {value}" for name, value in headers.items()]
    text = "\r\n".join((_status_line(status), *fields, date, "", ""))
    if not text.count("\r") == text.count("\n") == len(fields) + 3:
        raise ValueError("a header with the end of a line in it")
    return text.encode("latin-1", "replace")


@lru_cache(maxsize=128)
def _status_line(status: int) -> str:
    try:
        return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP/1.1 {status} "  # an engine's, or a dialect's own


@lru_cache(maxsize=1)
def _date(now_s: int) -> str:
    return f"date: {formatdate(now_s, usegmt=True)}"

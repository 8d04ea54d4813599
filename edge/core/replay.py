"""Answers kept for callers who ask again under the same Idempotency-Key.

Rules: only whole answers are kept, for KEPT_S after their end; beyond ENTRIES_MAX or BYTES_MAX the
oldest fall out first, and one above ANSWER_MAX_BYTES is not kept at all: asking again then runs
again. Under one key there is one request: another one is told so, also while the first runs. Keys
and requests are known by their hashes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

KEPT_S = 300.0
ENTRIES_MAX = 4_096
BYTES_MAX = 64 * 1024 * 1024
ANSWER_MAX_BYTES = 4 * 1024 * 1024
KEPT_HEADERS = ("content-type", "cache-control", "x-accel-buffering", "x-trimtab-served-by")
ENTRY_BYTES = 1_024  # what an entry takes beside its body, generously


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, as its caller got it."""

    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, body: bytes, headers: Mapping[str, str]) -> Self:
        """With those headers that belong to the answer, not to the request."""
        return cls(body, {name: headers[name] for name in KEPT_HEADERS if name in headers})


class Found(Enum):
    """What is known of a request, when there is no answer to replay."""

    NOTHING = auto()  # it is the first, and now runs
    RUNNING = auto()
    ANOTHER = auto()  # the key stands for another request


@dataclass(frozen=True, slots=True)
class _Entry:
    request: bytes
    answer: Answer
    ended_s: float

    @property
    def size_bytes(self) -> int:
        return len(self.answer.body) + ENTRY_BYTES


class Replays:
    """Of one edge."""

    def __init__(self) -> None:
        self._running: dict[bytes, bytes] = {}
        self._kept: OrderedDict[bytes, _Entry] = OrderedDict()
        self._size_bytes = 0

    def look(self, key: bytes, request: bytes, now_s: float) -> Found | Answer:
        """What to do with a request; NOTHING makes it the one that runs, until `ended`."""
        self._expire(now_s)
        kept, runs = self._kept.get(key), self._running.get(key)
        known = kept.request if kept else runs
        if known is None:
            self._running[key] = request
            return Found.NOTHING
        if known != request:
            return Found.ANOTHER
        return kept.answer if kept else Found.RUNNING

    def ended(self, key: bytes, answer: Answer | None, now_s: float) -> None:
        """The one that ran is over; None when there is nothing worth to be kept."""
        request = self._running.pop(key)
        if answer is None or len(answer.body) > ANSWER_MAX_BYTES:
            return
        entry = self._kept[key] = _Entry(request, answer, now_s)
        self._size_bytes += entry.size_bytes
        while len(self._kept) > ENTRIES_MAX or self._size_bytes > BYTES_MAX:
            self._drop_oldest()

    def _expire(self, now_s: float) -> None:
        while self._kept and now_s - next(iter(self._kept.values())).ended_s > KEPT_S:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, entry = self._kept.popitem(last=False)
        self._size_bytes -= entry.size_bytes


class Recording:
    """What a caller is sent of a stream."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        """All of it, once it ended well, unless it is too much."""
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def sent(self, data: bytes) -> None:
        """So much more; dropped when it can't be kept anyway."""
        self._size_bytes += len(data)
        if self._size_bytes > ANSWER_MAX_BYTES:
            self._parts.clear()
        else:
            self._parts.append(data)

    def ended(self, headers: Mapping[str, str]) -> None:
        """That was all."""
        if self._size_bytes <= ANSWER_MAX_BYTES:
            self.answer = Answer.of(b"".join(self._parts), headers)


def digest(*parts: bytes) -> bytes:
    """By what a key or a request is known."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.digest()

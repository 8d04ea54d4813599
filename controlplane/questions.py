"""Questions to the edges about what only they know, and what they answer.

Rules: all are asked at once, and named as silent if they have not told all in WITHIN_S; at most
OPEN_MAX questions are open, and an edge that tells more than it was allowed is told off as silent.
What the kinds are is in proto/trimtab/v1/question.proto; an edge answers for itself alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from controlplane.core.bounds import clip
from controlplane.streams import EdgeStream
from trimtab.v1.question_pb2 import EdgeAnswer, EdgeQuestion

WITHIN_S = 2.0
OPEN_MAX = 16
LIMIT_BYTES = 1024 * 1024


class BusyError(Exception):
    """So many questions are open that there is no place for another."""


@dataclass(slots=True)
class Told:
    """One edge's answer."""

    edge: str
    content: bytes = b""
    error: str = ""
    """Why there is none."""
    whole: bool = False


@dataclass(slots=True)
class _Asked:
    limit_bytes: int
    told: dict[int, Told]
    """By stream."""
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, told: Told, answer: EdgeAnswer) -> None:
        """One more part."""
        told.content += answer.content
        told.whole = not answer.more
        told.error = clip(answer.error)
        if len(told.content) > self.limit_bytes:
            told.content, told.error, told.whole = b"", "it told more than was asked for", True
        if all(one.whole for one in self.told.values()):
            self.done.set()


class Questions:
    """Those that are open."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, _Asked] = {}

    async def ask(
        self,
        streams: Iterable[EdgeStream],
        kind: str,
        argument: str,
        limit_bytes: int = LIMIT_BYTES,
    ) -> list[Told]:
        """What each edge answered; of those that were silent, that. Raises BusyError."""
        if len(self._open) >= OPEN_MAX:
            raise BusyError(f"{OPEN_MAX} questions to the edges are open; try again")
        known = [(stream, stream.hello) for stream in streams]
        whom = {stream.number: Told(hello.edge) for stream, hello in known if hello}
        question = EdgeQuestion(
            id=next(self._numbers),
            within_ms=round(1000 * WITHIN_S),
            limit_bytes=limit_bytes,
            kind=kind,
            argument=argument,
        )
        asked = self._open[question.id] = _Asked(limit_bytes, whom)
        try:
            for stream, hello in known:
                if hello is not None:
                    stream.questions.append(question)
                    stream.wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WITHIN_S if whom else 0.0):
                    await asked.done.wait()
        finally:
            del self._open[question.id]
        for told in whom.values():
            if not told.whole:
                told.content, told.error = b"", f"no answer in {WITHIN_S:g} s"
        return list(whom.values())

    def take(self, stream: EdgeStream, answer: EdgeAnswer) -> None:
        """A part of an answer; one that nobody waits for is dropped."""
        asked = self._open.get(answer.id)
        told = asked.told.get(stream.number) if asked else None
        if asked is not None and told is not None and not told.whole:
            asked.take(told, answer)

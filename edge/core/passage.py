"""What a caller gets of one attempt's events, and what they say about the attempt.

Rules: nothing passes before the first data, then all that was held; what tells usage to a caller
who did not ask for it is read, not passed; of such a stream the fingerprint of the engine, which
vLLM then puts into that event, goes back to where it stands without it, for which the last words
of a choice wait for the next event.
"""

from __future__ import annotations

from edge.core import splice
from edge.core.continuation import Rest
from edge.core.dialects import READERS
from edge.core.naming import Namer
from edge.core.openai import Call
from edge.core.shape import Plain, Shape
from edge.core.sse import FINISHED, Event, Kind
from edge.core.surface import Dialect

_FINGERPRINT = "system_fingerprint"
_LAST = frozenset({Kind.DONE, Kind.ERROR, Kind.ABORT})


class Passage:
    """The events of one attempt on their way; `started`: the caller has some of another one."""

    def __init__(self, call: Call, rest: Rest | None, *, started: bool) -> None:
        self._dialect = call.entry.dialect
        self.read = READERS[self._dialect]
        """How to read its events."""
        self._namer = Namer(self._dialect, call.answers_as)
        self._hides_usage = bool(call.add_usage)
        self._rest = rest
        self.shape = Shape()
        """Of its plain events."""
        self._started = started
        self._held = b""
        self.singly = rest is not None or self._dialect is not Dialect.OPENAI
        """Whether it takes one event at a time."""
        self.began = False
        """Whether data has come in this attempt."""
        self.tokens: int | None = None
        """Of the attempt's answer, if it has said so."""
        self.prompt_tokens = 0
        """Of its prompt, if it has said so."""
        self.cached_tokens = 0
        self.reasoning_tokens = 0
        self.last: Event | None = None
        """What ended it."""

    def plain(self, data: bytes) -> Plain | None:
        """Whole events like those before; None: `feed` them."""
        return self.shape.read(data)

    def beginning(self, data: bytes) -> tuple[Plain | None, int]:
        """Those of these events that are so, from the first one on, and their bytes."""
        size = self.shape.extent(data) if self.flows else 0
        plain = self.shape.read(data[:size]) if size else None
        return plain, size if plain else 0

    def feed(self, events: list[Event]) -> bytes | Plain:
        """What may pass now."""
        first = events[0] if len(events) == 1 and self.flows else None
        if first and first.kind is Kind.DATA and FINISHED not in first.raw:
            if plain := self.shape.read(first.raw):
                return plain
            named = self._namer.events(first.raw)
            self.shape.learn(first.raw, named)
            return named
        passing = bytearray()
        for event in events:
            if event.tokens:
                self.tokens, self.prompt_tokens = event.tokens, event.prompt_tokens
                self.cached_tokens = event.cached_tokens
                self.reasoning_tokens = event.reasoning_tokens
            if event.kind in _LAST:
                self.last = event
                break
            if event.kind is Kind.OPENING:
                self._held += self._joined(event.raw)
            elif event.kind is Kind.COMMENT:
                passing += event.raw if self._started else b""
            else:
                self.began = self._started = True
                passing += self._data(event)
        return bytes(passing)

    @property
    def is_empty(self) -> bool:
        """Whether it ended well and said nothing; a Responses stream says all in its last event."""
        return not self.began and self._dialect is not Dialect.RESPONSES

    @property
    def flows(self) -> bool:
        """Whether data is all that there is to pass, as nearly always."""
        return self.began and self.last is None and not self.singly and not self._held

    def end(self) -> bytes:
        """What is left to pass of an answer that is whole."""
        held, self._held = self._held, b""
        return held + self._namer.events(self.last.raw) if self.last else held

    def _data(self, event: Event) -> bytes:
        held, self._held = self._held, b""
        if self._hides_usage:
            if event.kind is Kind.USAGE:
                return _signed(held, event.raw)
            if FINISHED in event.raw:
                self._held = self._joined(event.raw)
                return held
        return held + self._joined(event.raw)

    def _joined(self, raw: bytes) -> bytes:
        return self._namer.events(raw) if self._rest is None else self._rest.join(raw)


def _signed(event: bytes, usage: bytes) -> bytes:
    """The last words with the fingerprint that came with the usage."""
    fingerprint = splice.fields(usage.partition(b":")[2]).get(_FINGERPRINT)
    if not event or fingerprint is None:
        return event
    start, end = event.index(b"{"), event.rindex(b"}") + 1
    signed = splice.splice(event[start:end], {_FINGERPRINT: bytes(fingerprint)})
    return b"".join((event[:start], signed, event[end:]))

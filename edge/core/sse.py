"""Server-sent events from an engine, cut into whole events and read just enough to be honest.

Rules: bytes pass through unchanged; what is read is only what decides the fate of the stream: is
this the first data, an error, an abort, the end? How OpenAI's completions say so is read here,
other dialects in core/dialects. Facts (vLLM 0.32): an error comes inside a 200 as
`data: {"error": …}` and is followed by `[DONE]`, which is therefore no proof of success; a drained
engine sends nothing but `[DONE]`; a comment (`: keep-alive`) is no data; the usage comes alone,
after the last choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import NamedTuple

import msgspec

EVENT_LIMIT_BYTES = 8 * 1024 * 1024
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
NO_CHOICES = b'"choices":[]'  # within a text its quotes would be escaped
FINISHED = b'"finish_reason":"'
_END = re.compile(rb"\r?\n\r?\n")
_ERROR = re.compile(rb'^data:\s*\{\s*"error"\s*:')
_ABORT = re.compile(rb'"finish_reason"\s*:\s*"abort"')


class Kind(Enum):
    """What an event means for the stream."""

    COMMENT = auto()
    OPENING = auto()  # said before the engine has done anything
    DATA = auto()
    USAGE = auto()  # of the whole answer, and nothing else
    ERROR = auto()
    ABORT = auto()
    DONE = auto()


class Event(NamedTuple):
    """One whole event, its blank line included, or some of plain data."""

    kind: Kind
    raw: bytes
    status: int = 0
    message: str = ""
    number: int = 1
    """So many events."""
    tokens: int = 0
    """Of the whole answer, where the event says so."""
    prompt_tokens: int = 0
    """The same of its prompt."""
    cached_tokens: int = 0
    """Of these, found in the engine's cache."""
    reasoning_tokens: int = 0
    """Of the answer's, those that were thought."""


class OversizedEventError(ValueError):
    """An event that would not end."""


def payloads(raw: bytes) -> Iterator[bytes]:
    """What stands in the data events of whole events, [DONE] left out."""
    for event in _END.split(raw):
        if event.startswith(b"data:") and not event.startswith(b"data: [DONE]"):
            yield event[5:]


def _plain(raw: bytes) -> int:
    """How many events, if all are plain data at the first glance; else 0: look at each."""
    if b'"error"' in raw or FINISHED in raw or b"data: [DONE]" in raw:
        return 0
    if NO_CHOICES in raw or b'"abort"' in raw:
        return 0
    number = raw.count(b"\n\n")
    plain = raw.startswith(b"data:") and raw.count(b"\n\ndata:") == number - 1
    return number if plain else 0


class _Error(msgspec.Struct):
    message: str = ""
    code: int | str | None = None


class _ErrorEvent(msgspec.Struct):
    error: _Error | str


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class Details(msgspec.Struct):
    """Of a prompt's tokens (vLLM says it with --enable-prompt-tokens-details) or an answer's."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


def read(raw: bytes) -> Event:
    """Classify one whole event."""
    if raw.startswith(b":"):
        return Event(Kind.COMMENT, raw)
    if raw.startswith(b"data: [DONE]"):
        return Event(Kind.DONE, raw)
    if _ERROR.match(raw):
        return _error(raw)
    if _ABORT.search(raw) and _aborted(raw):
        return Event(Kind.ABORT, raw)
    return _usage(raw) if NO_CHOICES in raw else Event(Kind.DATA, raw)


def aborted(body: bytes) -> bool:
    """Whether a whole (not streamed) answer says that the engine aborted it."""
    return b'"abort"' in body and bool(_ABORT.search(body)) and _finished_by_abort(body)


def _aborted(raw: bytes) -> bool:
    return _finished_by_abort(raw.partition(b":")[2])


def _finished_by_abort(json: bytes) -> bool:
    # the words may stand in generated text; only the field counts
    try:
        choices = msgspec.json.decode(json, type=_Chunk).choices
    except msgspec.DecodeError:
        return False
    return any(choice.finish_reason == "abort" for choice in choices)


def _error(raw: bytes) -> Event:
    try:
        error = msgspec.json.decode(raw.partition(b":")[2], type=_ErrorEvent).error
    except msgspec.DecodeError:
        return Event(Kind.DATA, raw)
    if isinstance(error, str):
        return Event(Kind.ERROR, raw, 500, error)
    code = str(error.code)  # vLLM sends a number, OpenAI a word
    return Event(Kind.ERROR, raw, int(code) if code.isdigit() else 500, error.message)


def _usage(raw: bytes) -> Event:
    try:
        chunk = msgspec.json.decode(raw.partition(b":")[2], type=_Chunk)
    except msgspec.DecodeError:
        return Event(Kind.DATA, raw)
    if chunk.choices or chunk.usage is None:
        return Event(Kind.DATA, raw)
    usage = chunk.usage
    tokens, prompt_tokens = usage.completion_tokens, usage.prompt_tokens
    cached = cached_tokens(usage.prompt_tokens_details)
    thought = reasoning_tokens(usage.completion_tokens_details)
    return Event(Kind.USAGE, raw, 0, "", 1, tokens, prompt_tokens, cached, thought)


def cached_tokens(details: Details | None) -> int:
    """Of a prompt, as far as its details say so."""
    return max(0, details.cached_tokens or 0) if details else 0


def reasoning_tokens(details: Details | None) -> int:
    """Of an answer, as far as its details say so."""
    return max(0, details.reasoning_tokens or 0) if details else 0


class Scanner:
    """Feed chunks in, get whole events out; a chunk may end anywhere.

    What is nothing but plain data of completions comes as one, unless `singly`.
    """

    def __init__(self, read: Callable[[bytes], Event] = read, *, singly: bool = False) -> None:
        self.rest = b""
        """Of an event that has not ended."""
        self._read = read
        self._singly = singly

    def cut(self, chunk: bytes) -> tuple[bytes, bytes]:
        """The events that this chunk completes as they are, and the beginning of the next one."""
        data = self.rest + chunk if self.rest else chunk
        if data.endswith(b"\n\n"):
            return data, b""
        end = data.rfind(b"\n\n") + 2
        return (data[:end], data[end:]) if end > 1 else (b"", data)

    def feed(self, chunk: bytes) -> list[Event]:
        """Events that this chunk completes; raises OversizedEventError."""
        data = self.rest + chunk if self.rest else chunk
        end = data.rfind(b"\n\n") + 2
        if not self._singly and b"\r" not in data and (number := _plain(data[:end])):
            events = [Event(Kind.DATA, data[:end], number=number)]
        else:
            events, end = [], 0
            for mark in _END.finditer(data):
                events.append(self._read(data[end : mark.end()]))
                end = mark.end()
        self.rest = data[end:]
        if len(self.rest) > EVENT_LIMIT_BYTES:
            raise OversizedEventError(f"an event of more than {EVENT_LIMIT_BYTES} bytes")
        return events

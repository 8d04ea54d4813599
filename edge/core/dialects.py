"""What events and whole answers mean in OpenAI's Responses and Anthropic's Messages.

Facts (vLLM 0.32). Responses: `response.created` and `response.in_progress` come before the engine
has begun, so they are no data; an answer ends with `response.completed` (or `incomplete`), without
`[DONE]`; one that the engine aborted ends so too, with the status `cancelled`. Messages: an answer
ends with `message_stop`, also when the engine drains and says nothing else; an aborted one has no
`stop_reason`; an engine that is full answers a burst with a 200 and an `error` that quotes its 503.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from edge.core import sse
from edge.core.sse import Event, Kind
from edge.core.surface import Dialect

_EVENT = re.compile(rb"event:\s*([\w.]+)")
_BUSY = re.compile(r"currently busy|'code': 503\b")
_OPENINGS = frozenset({b"response.created", b"response.queued", b"response.in_progress"})
_ENDS = frozenset({b"response.completed", b"response.incomplete"})
_STATUS_OF = {"overloaded_error": 503, "rate_limit_error": 429, "invalid_request_error": 400}


_UNKNOWN = msgspec.Raw(b'"')


class Usage(msgspec.Struct):
    """What an answer says that it counts, in any dialect."""

    prompt_tokens: int | None = None
    input_tokens: int | None = None
    completion_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: sse.Details | None = None
    input_tokens_details: sse.Details | None = None
    cache_read_input_tokens: int | None = None
    completion_tokens_details: sse.Details | None = None
    output_tokens_details: sse.Details | None = None

    @property
    def made_tokens(self) -> int:
        """Tokens of the answer."""
        return max(0, self.completion_tokens or self.output_tokens or 0)

    @property
    def read_tokens(self) -> int:
        """Tokens of the prompt."""
        return max(0, self.prompt_tokens or self.input_tokens or 0)

    @property
    def cached_tokens(self) -> int:
        """Of these, found in the engine's cache."""
        details = sse.cached_tokens(self.prompt_tokens_details or self.input_tokens_details)
        return details or max(0, self.cache_read_input_tokens or 0)

    @property
    def reasoning_tokens(self) -> int:
        """Of the answer's, those that were thought."""
        return sse.reasoning_tokens(self.completion_tokens_details or self.output_tokens_details)


class _Error(msgspec.Struct):
    message: str = ""
    type: str = ""
    code: int | str | None = None


class Said(msgspec.Struct):
    """Of an answer, a stream's last event, or an error, whatever it is."""

    model: msgspec.Raw = msgspec.Raw(b"")
    usage: Usage | None = None
    status: str = ""
    stop_reason: str | None = None
    message: msgspec.Raw = msgspec.Raw(b"")
    code: int | str | None = None
    error: _Error | str | None = None


_SAID = msgspec.json.Decoder(Said)
NOTHING = Usage()


class _ResponseEvent(msgspec.Struct):
    response: Said = msgspec.field(default_factory=Said)


class _DeltaEvent(msgspec.Struct):
    delta: Said = msgspec.field(default_factory=Said)
    usage: Usage | None = None


def read_responses(raw: bytes) -> Event:
    """Classify one event of a Responses stream."""
    kind = _kind(raw)
    if kind in _OPENINGS:
        return Event(Kind.OPENING, raw)
    if kind in _ENDS:
        answer = _response(raw)
        ended = Kind.ABORT if answer.status == "cancelled" else Kind.DONE
        return _counted(ended, raw, answer.usage or NOTHING)
    if kind == b"response.failed":
        return _failed(raw, _response(raw))
    return _other(kind, raw)


def read_messages(raw: bytes) -> Event:
    """Classify one event of a Messages stream."""
    kind = _kind(raw)
    if kind == b"message_start":
        return Event(Kind.OPENING, raw)
    if kind == b"message_stop":
        return Event(Kind.DONE, raw)
    if kind == b"message_delta":
        event = msgspec.json.decode(_data(raw), type=_DeltaEvent)
        going_on = Kind.ABORT if event.delta.stop_reason is None else Kind.DATA
        return _counted(going_on, raw, event.usage or NOTHING)
    return Event(Kind.COMMENT, raw) if kind == b"ping" else _other(kind, raw)


READERS: Mapping[Dialect, Callable[[bytes], Event]] = {
    Dialect.OPENAI: sse.read,
    Dialect.RESPONSES: read_responses,
    Dialect.ANTHROPIC: read_messages,
}


def said(body: bytes) -> Said:
    """What a whole answer says, read once."""
    try:
        return _SAID.decode(body)
    except msgspec.DecodeError:
        return Said(model=_UNKNOWN, stop_reason="unknown")


def aborted(dialect: Dialect, body: bytes, answer: Said) -> bool:
    """Whether a whole answer is none: the engine gave it up."""
    if dialect is Dialect.OPENAI:
        return sse.aborted(body)
    return answer.status == "cancelled" if dialect is Dialect.RESPONSES else not answer.stop_reason


def message(body: bytes) -> str:
    """What an error says."""
    return _failed(b"", said(body)).message


def _counted(kind: Kind, raw: bytes, usage: Usage) -> Event:
    counts = (usage.made_tokens, usage.read_tokens, usage.cached_tokens, usage.reasoning_tokens)
    return Event(kind, raw, 0, "", 1, *counts)


def _kind(raw: bytes) -> bytes:
    found = _EVENT.match(raw)
    return found[1] if found else b""


def _data(raw: bytes) -> bytes:
    return raw[raw.find(b"data:") + 5 :]


def _other(kind: bytes, raw: bytes) -> Event:
    if kind == b"error":
        return _failed(raw, said(_data(raw)))
    return sse.read(raw) if not kind else Event(Kind.DATA, raw)


def _response(raw: bytes) -> Said:
    return msgspec.json.decode(_data(raw), type=_ResponseEvent).response


def _failed(raw: bytes, answer: Said) -> Event:
    error = answer.error
    if error is None:  # the Responses API has it outside
        text = bytes(answer.message)
        error = _Error(msgspec.json.decode(text) if text.startswith(b'"') else "", "", answer.code)
    if isinstance(error, str):
        error = _Error(error)
    code = str(error.code)
    status = int(code) if code.isdigit() else _STATUS_OF.get(error.type, 500)
    return Event(Kind.ERROR, raw, 503 if _BUSY.search(error.message) else status, error.message)

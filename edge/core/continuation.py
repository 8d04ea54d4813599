"""An answer cut in the middle: what was said, how to ask another replica for the rest, how to join.

Rules: only what another replica can go on with as if it had said the beginning itself is continued,
all else is a flaw, in one word for people; the caller must not see the seam: same id, time and
model, one role, one finish, usage of the whole. While all goes well, what was sent is only kept,
and read in bulk at every FOLD_BYTES or when the stream is cut; never logged or stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edge.core import openai, sse
from edge.core.openai import Call
from edge.core.surface import CHAT

FOLD_BYTES = 32 * 1024
TEXT_LIMIT_CHARS = 1024 * 1024
COMPLETION_MAX_TOKENS = 16  # what vLLM gives a text completion that does not say

_NOTHING = frozenset({b"null", b"false", b"[]", b"{}", b'""'})
_ZERO = frozenset({b"null", b"0", b"0.0"})
_NO_CHOICE = _NOTHING | {b'"none"', b'"auto"'}
# What must have one of these values, if any: the rest of such an answer depends on more than its
# text, or what was asked for would lack its first part.
_NEUTRAL: Mapping[str, frozenset[bytes]] = {
    **dict.fromkeys(("n", "best_of"), frozenset({b"null", b"1"})),
    **dict.fromkeys(("tools", "functions"), _NOTHING),
    **dict.fromkeys(("tool_choice", "function_call"), _NO_CHOICE),
    **dict.fromkeys(("logprobs", "prompt_logprobs"), _NOTHING),
    "top_logprobs": _ZERO | _NOTHING,
    "response_format": _NOTHING | {b'{"type":"text"}'},
    "structured_outputs": _NOTHING,
    **{f"guided_{kind}": _NOTHING for kind in ("json", "regex", "choice", "grammar")},
    **dict.fromkeys(("echo", "suffix", "use_beam_search", "prompt_embeds"), _NOTHING),
    **dict.fromkeys(("return_token_ids", "return_tokens_as_token_ids"), _NOTHING),
    "truncate_prompt_tokens": _NOTHING,
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), _ZERO),  # of the answer alone
    "continue_final_message": _NOTHING,
    "add_generation_prompt": frozenset({b"null", b"true"}),
}


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    function_call: dict[str, msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    delta: _Delta | None = None
    logprobs: dict[str, msgspec.Raw] | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[_Choice] = []
    usage: _Usage | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Transcript:
    """What one caller has of a stream; `flaw` says why it can't go on elsewhere."""

    __slots__ = (
        *("_chars", "_is_text", "_kept", "_text", "finished", "flaw", "head", "pieces", "usage"),
    )

    def __init__(self) -> None:
        self.flaw = ""
        self.head: _Chunk | None = None
        """The first chunk: what the rest must be called, too."""
        self.finished = False
        self.usage: _Usage | None = None
        """The last that was told."""
        self.pieces = 0
        """Of text: so many tokens at least."""
        self._text: list[str] = []
        self._chars = 0
        self._kept = bytearray()
        """What is still to be read: events, or"""
        self._is_text = False
        """texts as they stand within quotes."""

    def sent(self, data: bytes) -> None:
        """The caller gets these whole events."""
        if not self.flaw:
            self._keep(data, is_text=False)

    def said(self, text: bytes, pieces: int) -> None:
        """The caller gets events like those before, with this text as it stands within quotes."""
        if not self.flaw:
            self.pieces += pieces
            self._keep(text, is_text=True)

    def fold(self) -> None:
        """Read what was kept."""
        kept, self._kept = self._kept, bytearray()
        try:
            if self._is_text:
                self._say(msgspec.json.decode(b'"%b"' % bytes(kept), type=str), 0)
            else:
                self._read(bytes(kept))
        except msgspec.DecodeError:
            self.flaw = "format"
        if self._chars > TEXT_LIMIT_CHARS:
            self.flaw = "length"
        if self.flaw:
            self._text.clear()

    def _keep(self, data: bytes, *, is_text: bool) -> None:
        if self._is_text is not is_text:
            self.fold()
            self._is_text = is_text
        self._kept += data
        if len(self._kept) >= FOLD_BYTES:
            self.fold()

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._text)

    def _read(self, raw: bytes) -> None:
        for payload in sse.payloads(raw):
            chunk = msgspec.json.decode(payload, type=_Chunk)
            self.head = self.head or chunk
            self.usage = chunk.usage or self.usage
            for choice in chunk.choices:
                self._hear(choice)

    def _hear(self, choice: _Choice) -> None:
        delta = choice.delta or _Delta()
        if choice.index:
            self.flaw = "choices"
        elif delta.reasoning or delta.reasoning_content:
            self.flaw = "reasoning"
        elif delta.tool_calls or delta.function_call:
            self.flaw = "tools"
        elif choice.logprobs is not None:
            self.flaw = "logprobs"
        elif not delta.role:  # that comes by itself, before the first token
            self._say(choice.text or delta.content or "", 1)
        elif delta.content:
            self._say(delta.content, 1)
        self.finished = self.finished or choice.finish_reason is not None

    def _say(self, text: str, pieces: int) -> None:
        self._text.append(text)
        self._chars += len(text)
        self.pieces += pieces


def flaw(call: Call, transcript: Transcript) -> str:
    """Why this answer can't go on elsewhere exactly, in a word; empty if it can."""
    transcript.fold()
    if transcript.flaw:
        return transcript.flaw
    fields = msgspec.json.decode(call.body, type=dict[str, msgspec.Raw])
    for name, neutral in _NEUTRAL.items():
        if name in fields and _plain(fields[name]) not in neutral:
            return name
    kind, opening = ("messages", b"[") if call.path == CHAT else ("prompt", b'"')
    if bytes(memoryview(fields.get(kind, b""))[:1]) != opening:
        return kind  # token ids, several prompts
    for name in ("max_tokens", "max_completion_tokens", "min_tokens"):
        if name in fields and _plain(fields[name]) != b"null" and _number(fields[name]) is None:
            return name
    return "stop" if _within_stop(fields.get("stop"), transcript.text) else ""


def is_whole(call: Call, transcript: Transcript) -> bool:
    """Whether only the mark of the end was missing."""
    if not transcript.finished:
        return False
    fields = msgspec.json.decode(call.body, type=dict[str, msgspec.Raw])
    return transcript.usage is not None or not _wants_usage(fields)


@dataclass(frozen=True, slots=True)
class Rest:
    """What to ask for, and how to join it to what was sent; `tokens` of the answer are out."""

    body: bytes
    """Empty if there is nothing to ask for."""
    tokens: int
    head: _Chunk
    over: bool
    """No text is to follow, at most the usage."""
    finish: bytes
    """What the caller is to get first."""

    def join(self, event: bytes) -> bytes:
        """A data event of the rest as the caller is to see it; empty if not at all."""
        chunk: dict[str, Any] = msgspec.json.decode(event.partition(b":")[2], type=dict[str, Any])
        choices = chunk.get("choices") or []
        if choices and (self.over or not any(map(_says, choices))):
            return b""
        chunk |= {"id": self.head.id, "created": self.head.created, "model": self.head.model}
        if usage := chunk.get("usage"):
            usage["prompt_tokens"] = max(0, usage.get("prompt_tokens", 0) - self.tokens)
            new = 0 if self.over else usage.get("completion_tokens", 0)
            usage["completion_tokens"] = self.tokens + new
            usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        return _event(chunk)


def rest(call: Call, transcript: Transcript, tokens: int | None) -> Rest:
    """How to go on with what has no flaw; `tokens` of the text so far, None if nobody knows."""
    # Several tokens may share an event, and a text may be written in fewer than it was said in.
    tokens = max(tokens or 0, transcript.pieces)
    if transcript.usage is not None:
        tokens = transcript.usage.completion_tokens  # it was told with each event
    fields: dict[str, Any] = msgspec.json.decode(call.body, type=dict[str, msgspec.Raw])
    over = not _shorten(fields, call.path, tokens) or transcript.finished
    head = transcript.head or _Chunk()
    finish = _finish(call.path, head) if over and not transcript.finished else b""
    if over and (not _wants_usage(fields) or transcript.usage is not None):
        return Rest(b"", tokens, head, over, finish)
    if over:  # a token that nobody gets is the price of the usage
        fields |= {"max_tokens": 1, "max_completion_tokens": None, "min_tokens": 0}
    text = transcript.text
    if text and call.path == CHAT:
        messages = msgspec.json.decode(fields["messages"], type=list[msgspec.Raw])
        fields["messages"] = [*messages, {"role": "assistant", "content": text}]
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    elif text:
        fields["prompt"] = msgspec.json.decode(fields["prompt"], type=str) + text
    return Rest(openai.encode(fields), tokens, head, over, finish)


def _shorten(fields: dict[str, Any], path: str, tokens: int) -> bool:
    """Take what is out off the limits; False if nothing is left."""
    if path != CHAT:
        fields.setdefault("max_tokens", msgspec.Raw(b"%d" % COMPLETION_MAX_TOKENS))
    left = 1
    for name in ("max_tokens", "max_completion_tokens"):
        if most := _number(fields.get(name)):  # the second counts where both are given
            fields[name] = left = most - tokens
    if least := _number(fields.get("min_tokens")):
        fields["min_tokens"] = max(0, least - tokens)
    return left > 0


def _says(choice: dict[str, Any]) -> bool:
    """Whether a choice of the rest is news, with the role taken out, which the caller has."""
    delta = choice.get("delta") or {}
    delta.pop("role", None)
    return bool(choice.get("finish_reason") or choice.get("text") or any(delta.values()))


def _finish(path: str, head: _Chunk) -> bytes:
    """The last event of a text that has all its tokens, but was cut before it was told so."""
    chat = path == CHAT
    choice = {"index": 0, "delta": {}} if chat else {"index": 0, "text": ""}
    choice |= {"logprobs": None, "finish_reason": "length", "stop_reason": None}
    kind = "chat.completion.chunk" if chat else "text_completion"
    chunk = {"id": head.id, "object": kind, "created": head.created, "model": head.model}
    return _event(chunk | {"choices": [choice]})


def _event(chunk: Mapping[str, object]) -> bytes:
    return b"data: " + openai.encode(chunk) + b"\n\n"


def _wants_usage(fields: Mapping[str, Any]) -> bool:
    options = fields.get("stream_options") or b"null"
    try:
        found = msgspec.json.decode(options, type=_StreamOptions | None, strict=False)
    except msgspec.DecodeError:
        return True
    return found is not None and bool(found.include_usage)


def _within_stop(raw: msgspec.Raw | None, text: str) -> bool:
    """Whether the text may end inside of a stop string, whose other part would not be known."""
    try:
        stops = msgspec.json.decode(raw or b"null", type=str | list[str] | None)
    except msgspec.DecodeError:
        return True
    listed = [stops] if isinstance(stops, str) else stops or []
    return any(text.endswith(stop[:end]) for stop in listed for end in range(1, len(stop)))


def _plain(raw: msgspec.Raw) -> bytes:
    return b"".join(bytes(raw).split()) if len(memoryview(raw)) < 64 else bytes(raw)


def _number(raw: msgspec.Raw | None) -> int | None:
    return openai.whole_number(msgspec.UNSET if raw is None else raw)

"""OpenAI's HTTP dialect: what the edge reads of a request, owns in it, and makes itself.

Rules: a body passes through byte for byte except for what the edge owns: the model's name, and the
fields by which a caller could help himself (vLLM honours all of them: priority over others, cache
partition, transfer of KV blocks, ids of its own). Unknown fields survive; the engine validates.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from edge.core import problems
from edge.core.problems import Problem
from trimtab.model import Pool, Route
from trimtab.policy import affinity
from trimtab.policy.work import BYTES_PER_TOKEN

PRIVILEGED_FIELDS = ("priority", "cache_salt", "kv_transfer_params", "vllm_xargs", "request_id")
CHAT = "/v1/chat/completions"
COMPLETION_PATHS = (CHAT, "/v1/completions")
DEADLINE_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
DEADLINE_MAX_S = 3_600.0
KEY_LIMIT_CHARS = 512
SESSION_HEADERS = ("x-session-id", "session_id", "x-openwebui-chat-id")
SESSION_LIMIT_BYTES = 512
BEGINNING_MIN_BYTES = 2_048  # a shorter prompt is computed in 14 ms: nothing to save
BEGINNING_MAX_BYTES = 16_384  # read of a conversation: its system prompt and first question
HEAD_BYTES = 1_024  # read of any other prompt, which may grow at its end
_TRUE = frozenset({b"true", b"1", b'"true"', b'"True"', b'"1"'})  # pydantic's, as vLLM reads it


class _Body(msgspec.Struct):
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    max_tokens: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    max_completion_tokens: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    priority: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    cache_salt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    kv_transfer_params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    vllm_xargs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    request_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    prompt_cache_key: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    prompt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Answer(msgspec.Struct):
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _Count(msgspec.Struct):
    count: int


@dataclass(frozen=True, slots=True)
class Call:
    """One request as far as the edge reads it. `model` is None when none was named."""

    path: str
    body: bytes
    model: str | None
    stream: bool
    privileged: bool
    max_tokens: int | None = None
    session: bytes = b""
    """What the body calls the session, as it stands there."""
    beginning_key: bytes = b""
    """Of what a prompt's later versions begin with too."""

    @property
    def prompt_tokens(self) -> int:
        """A guess: the edge has no tokenizer."""
        return len(self.body) // BYTES_PER_TOKEN

    def body_for(self, served_as: str) -> bytes:
        """The bytes to send to a replica that knows the model by this name."""
        if not self.privileged and (self.model is None or self.model == served_as):
            return self.body
        fields = msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])
        for name in PRIVILEGED_FIELDS:
            fields.pop(name, None)
        if self.model is not None:
            fields["model"] = msgspec.Raw(msgspec.json.encode(served_as))
        return msgspec.json.encode(fields)


def parse(path: str, content_type: str, body: bytes) -> Call | Problem:
    """Read what routing needs."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        return problems.bad_content_type(content_type)
    try:
        fields = msgspec.json.decode(body, type=_Body)
        model = _text(fields.model)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return problems.bad_json(str(error))
    stream = fields.stream is not msgspec.UNSET and bytes(fields.stream) in _TRUE
    owned = any(getattr(fields, name) is not msgspec.UNSET for name in PRIVILEGED_FIELDS)
    most = whole_number(fields.max_completion_tokens) or whole_number(fields.max_tokens)
    session = _head(fields.prompt_cache_key, SESSION_LIMIT_BYTES)
    named = session.startswith(b'"') and session != b'""'
    prompt = fields.prompt if fields.messages is msgspec.UNSET else fields.messages
    return Call(
        *(path, body, model, stream, owned, most),
        session=session if named else b"",
        beginning_key=_beginning_key(prompt),
    )


def beyond_context(call: Call, routes: Iterable[Route]) -> Problem | None:
    """Why no replica could ever take it, where that is certain without counting the prompt."""
    lengths = [route.max_model_len_tokens for route in routes]
    longest = max((math.inf if n is None else n for n in lengths), default=math.inf)
    if call.max_tokens is None or call.max_tokens <= longest:
        return None
    return problems.answer_too_long(call.max_tokens, int(longest))


def completion_tokens(body: bytes) -> int:
    """How many tokens a whole answer has, as it says itself; 0 if it does not."""
    try:
        return max(0, msgspec.json.decode(body, type=_Answer).usage.completion_tokens)
    except msgspec.DecodeError:
        return 0


def token_count(body: bytes) -> int | None:
    """What /tokenize says."""
    try:
        return msgspec.json.decode(body, type=_Count).count
    except msgspec.DecodeError:
        return None


def credentials(headers: Mapping[str, str]) -> str:
    """The caller's key from any of the three headers in use; empty if there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()[:KEY_LIMIT_CHARS]
    return (headers.get("x-api-key") or headers.get("api-key") or "").strip()[:KEY_LIMIT_CHARS]


def key_hash(key: str) -> bytes:
    """SHA-256, as keys are stored; the same as LiteLLM's, so that its keys can move."""
    return hashlib.sha256(key.encode()).digest()


def affinity_key(headers: Mapping[str, str], call: Call, tenant: str) -> bytes:
    """What requests have in common that should meet on one replica; empty if nothing is known."""
    named = next((headers[name] for name in SESSION_HEADERS if headers.get(name)), "")
    session = named.encode(errors="replace")[:SESSION_LIMIT_BYTES] or call.session
    # a session's name means something to one tenant only, the same prompt is the same for all
    return affinity.key(tenant.encode(), session) if session else call.beginning_key


def patience_s(headers: Mapping[str, str]) -> float | None:
    """How long the caller's SDK says it will wait; None when it does not say."""
    for name in DEADLINE_HEADERS:
        try:
            seconds = float(headers.get(name, ""))
        except ValueError:
            continue
        if seconds > 0.0:
            return min(seconds, DEADLINE_MAX_S)
    return None


def model_card(pool: Pool, routes: Iterable[Route], created: int) -> dict[str, object]:
    """A pool as /v1/models shows it; the longest context that every replica can take."""
    lengths = [r.max_model_len_tokens for r in routes if r.max_model_len_tokens is not None]
    card: dict[str, object] = {
        "id": pool.name,
        "object": "model",
        "created": created,
        "owned_by": "trimtab",
    }
    return card | ({"max_model_len": min(lengths)} if lengths else {})


def model_list(cards: Iterable[dict[str, object]]) -> bytes:
    """The body of GET /v1/models."""
    return encode({"object": "list", "data": list(cards)})


def whole_number(raw: msgspec.Raw | msgspec.UnsetType) -> int | None:
    """A number as it stands in a body, if it is one, and not below zero."""
    text = b"" if raw is msgspec.UNSET else bytes(raw)
    return int(text) if text.isdigit() and len(text) < 10 else None


def encode(value: object) -> bytes:
    """Compact JSON, as vLLM writes it."""
    return msgspec.json.encode(value)


def _head(raw: msgspec.Raw | msgspec.UnsetType, limit_bytes: int) -> bytes:
    return b"" if raw is msgspec.UNSET else bytes(memoryview(raw)[:limit_bytes])


def _beginning_key(prompt: msgspec.Raw | msgspec.UnsetType) -> bytes:
    beginning = _head(prompt, BEGINNING_MAX_BYTES)
    if len(beginning) < BEGINNING_MIN_BYTES:
        return b""
    # Of a conversation all that does not change from turn to turn: up to the end of the first
    # question, if that is near. Inside of a text these quotes would be escaped.
    question = beginning.find(b'"user"')
    end = beginning.find(b"}", question) if question >= 0 else HEAD_BYTES
    return affinity.key(beginning[:end] if end >= 0 else beginning)


def _text(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    if raw is msgspec.UNSET or bytes(raw) == b"null":
        return None
    return msgspec.json.decode(raw, type=str)

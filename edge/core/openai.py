"""JSON requests: what the edge reads of one, owns in it, and makes itself.

Rules: a body passes through byte for byte except for what the edge owns: the model's name, whether
a stream tells its usage, and the fields by which a caller could help himself (vLLM honours all of
them: priority over others, cache partition, transfer of KV blocks, ids of its own). Unknown fields
survive; the engine validates.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec

from edge.core import problems, splice, surface
from edge.core.problems import Problem
from edge.core.surface import CHAT, TEXT, Cost, Entry, Found
from trimtab.model import Route
from trimtab.policy import affinity
from trimtab.policy.work import BYTES_PER_TOKEN

PRIVILEGED_FIELDS = ("priority", "cache_salt", "kv_transfer_params", "vllm_xargs", "request_id")
FIELDS_LIMIT = 250_000  # names in one body; only looked at where it is large
LARGE_BODY_BYTES = 1024 * 1024
DEADLINE_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
DEADLINE_MAX_S = 3_600.0
KEY_LIMIT_CHARS = 512
SESSION_HEADERS = ("x-session-id", "session_id", "x-openwebui-chat-id")
SESSION_LIMIT_BYTES = 512
BEGINNING_MIN_BYTES = 2_048  # a shorter prompt is computed in 14 ms: nothing to save
BEGINNING_MAX_BYTES = 16_384  # read of a conversation: its system prompt and first question
HEAD_BYTES = 1_024  # read of any other prompt, which may grow at its end
JSON = "application/json"
COMPLETIONS = frozenset({CHAT, TEXT})
_TRUE = frozenset({b"true", b"1", b'"true"', b'"True"', b'"1"'})  # pydantic's, as vLLM reads it
_USAGE = b'{"include_usage":true}'
_NAME = re.compile(rb'"[ \t\r\n]*:')


class _Body(msgspec.Struct):
    model: str | None = None
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
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    max_output_tokens: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream_options: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    previous_response_id: str | None = None

    @property
    def privileged(self) -> bool:
        """Whether it has any of PRIVILEGED_FIELDS."""
        return not (
            self.priority is msgspec.UNSET
            and self.cache_salt is msgspec.UNSET
            and self.kv_transfer_params is msgspec.UNSET
            and self.vllm_xargs is msgspec.UNSET
            and self.request_id is msgspec.UNSET
        )

    @property
    def prompt_raw(self) -> msgspec.Raw | msgspec.UnsetType:
        """The prompt, whatever it is called."""
        if self.messages is not msgspec.UNSET:
            return self.messages
        return self.input if self.prompt is msgspec.UNSET else self.prompt

    @property
    def most_tokens(self) -> int | None:
        """What the answer may have."""
        for raw in (self.max_completion_tokens, self.max_tokens, self.max_output_tokens):
            if raw is not msgspec.UNSET and (most := whole_number(raw)):
                return most
        return None


_BODY = msgspec.json.Decoder(_Body)


class _Count(msgspec.Struct):
    count: int


class Call(msgspec.Struct, frozen=True):
    """One request as far as the edge reads it. `model` is None when none was named."""

    entry: Entry
    path: str
    body: bytes
    model: str | None = None
    stream: bool = False
    privileged: bool = False
    max_tokens: int | None = None
    session: bytes = b""
    """What the body calls the session, as it stands there."""
    beginning_key: bytes = b""
    """Of what a prompt's later versions begin with too."""
    previous: str = ""
    """The answer that it goes on from, or is about: only the replica that made it has it."""
    add_usage: bytes = b""
    """The stream_options to ask for, where the caller asked for no usage; empty if he did."""
    answers_as: str = ""
    """What the model is called in the answer."""
    method: str = "POST"

    @property
    def prompt_tokens(self) -> int:
        """A guess: the edge has no tokenizer."""
        return len(self.body) // BYTES_PER_TOKEN

    def answering_as(self, name: str) -> Call:
        """The same call, whose answer is to call the model so."""
        return msgspec.structs.replace(self, answers_as=name)

    def body_for(self, served_as: str, answer_id: str = "") -> splice.Pieces:
        """The bytes to send to a replica that knows the model by this name.

        `answer_id`: what it is to call its answer, if that is the edge's affair.
        """
        changes: dict[str, bytes | None] = {}
        if self.privileged:
            changes = dict.fromkeys(PRIVILEGED_FIELDS)
        if answer_id:
            changes["request_id"] = encode(answer_id)
        if self.model is not None and self.model != served_as:
            changes["model"] = encode(served_as)
        if self.add_usage:
            changes["stream_options"] = self.add_usage
        return splice.pieces(self.body, changes) if changes else [self.body]


def parse(found: Found, content_type: str, body: bytes) -> Call | Problem:
    """Read what routing needs."""
    if content_type != JSON and content_type.partition(";")[0].strip().lower() != JSON:
        return problems.bad_content_type(content_type)
    if len(body) > LARGE_BODY_BYTES and any(islice(_NAME.finditer(body), FIELDS_LIMIT, None)):
        return problems.bad_json(f"more than {FIELDS_LIMIT} names in it")
    try:
        fields = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return problems.bad_json(str(error))
    entry = found.entry
    stream = entry.streams and _is_true(fields.stream)
    tells_usage = stream and entry.path in COMPLETIONS
    session = _head(fields.prompt_cache_key, SESSION_LIMIT_BYTES)
    named = session.startswith(b'"') and session != b'""'
    return Call(
        *(entry, found.path, body, fields.model, stream),
        privileged=fields.privileged,
        max_tokens=fields.most_tokens,
        session=session if named else b"",
        beginning_key=_beginning_key(fields.prompt_raw) if entry.cost is Cost.ANSWER else b"",
        previous=(fields.previous_response_id or "") if entry.path == surface.RESPONSES else "",
        add_usage=_add_usage(fields.stream_options) if tells_usage else b"",
    )


def about(found: Found, method: str, query: Mapping[str, str]) -> Call:
    """A request about an answer that some replica keeps: it has no body."""
    stream = found.entry.streams and query.get("stream", "").lower() in {"true", "1"}
    after = query.get("starting_after", "")
    path = f"{found.path}?stream=true" if stream else found.path
    if stream and after.isdecimal() and len(after) < 10:
        path += f"&starting_after={after}"
    return Call(found.entry, path, b"", stream=stream, previous=found.id, method=method)


def beyond_context(call: Call, routes: Iterable[Route]) -> Problem | None:
    """Why no replica could ever take it, where that is certain without counting the prompt."""
    if call.max_tokens is None:
        return None
    longest = 0
    for route in routes:
        if route.max_model_len_tokens is None or route.max_model_len_tokens >= call.max_tokens:
            return None
        longest = max(longest, route.max_model_len_tokens)
    return problems.answer_too_long(call.max_tokens, longest) if longest else None


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
    session = call.session
    for name in SESSION_HEADERS:
        if named := headers.get(name):
            session = named.encode(errors="replace")[:SESSION_LIMIT_BYTES]
            break
    # a session's name means something to one tenant only, the same prompt is the same for all
    return affinity.key(tenant.encode(), session) if session else call.beginning_key


def patience_s(headers: Mapping[str, str]) -> float | None:
    """How long the caller's SDK says it will wait; None when it does not say."""
    for name in DEADLINE_HEADERS:
        try:
            seconds = float(headers.get(name) or 0.0)
        except ValueError:
            continue
        if seconds > 0.0:
            return min(seconds, DEADLINE_MAX_S)
    return None


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


def _is_true(raw: msgspec.Raw | msgspec.UnsetType) -> bool:
    return raw is not msgspec.UNSET and bytes(raw) in _TRUE


def _add_usage(raw: msgspec.Raw | msgspec.UnsetType) -> bytes:
    if raw is msgspec.UNSET or bytes(raw) == b"null":
        return _USAGE
    try:
        options = splice.fields(bytes(raw))
    except msgspec.DecodeError:
        return b""  # the engine will say what is wrong with it
    if _is_true(options.get("include_usage", msgspec.UNSET)):
        return b""
    # without the other it had no effect
    changes = {"include_usage": b"true", "continuous_usage_stats": None}
    return splice.splice(bytes(raw), changes)


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

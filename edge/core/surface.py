"""The paths of the endpoint: one table of what is served, how, and in whose dialect.

Rules: what is not here is denied, with words that say what is served. `extra_paths` of the
configuration adds JSON paths of vLLM's own that answer whole; what steers an engine or runs code
in it (NEVER) is denied whatever the configuration says. A path is matched decoded and without its
query (`?beta=true` must not matter), and sent on as it stands here: no caller shapes the URL that
an engine sees, beyond a name of NAME's letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import NamedTuple

from edge.core import problems
from edge.core.problems import Problem

NAME = r"[A-Za-z0-9_-]{1,128}"
"""What may stand for {id}: letters that need no care in a URL."""

# What begins so is of vLLM's admin class (0.32): it steers the engine, loads or runs code, or shows
# its inside; and /invocations is any other path behind one name.
NEVER = (
    *("/abort_requests", "/collective_rpc", "/configure", "/docs", "/fault_tolerance", "/health"),
    *("/init_weight_transfer_engine", "/invocations", "/is_paused", "/is_scaling_elastic_ep"),
    *(
        "/is_sleeping",
        "/kv_event",
        "/load",
        "/metrics",
        "/openapi.json",
        "/pause",
        "/ping",
        "/profile",
    ),
    *("/redoc", "/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache", "/resume"),
    *("/scale_elastic_ep", "/server_info", "/sleep", "/start_profile", "/start_weight_update"),
    *("/finish_weight_update", "/stop_profile", "/update_weights", "/v1/load_lora_adapter"),
    *("/v1/unload_lora_adapter", "/version", "/wake_up"),
)


class Dialect(Enum):
    """Whose errors, events and ends of streams a path speaks."""

    OPENAI = auto()
    RESPONSES = auto()
    ANTHROPIC = auto()


class ModelIn(Enum):
    """Where a request names its model."""

    NOWHERE = auto()
    JSON = auto()  # `model`, in the body
    FORM = auto()  # `model`, a field of a form with a file
    SOCKET = auto()  # `?model=`, or the first session.update of a WebSocket
    ID = auto()  # whatever the replica that made this id serves


class Cost(Enum):
    """What a request takes of an engine."""

    NOTHING = auto()  # the edge answers by itself
    CHEAP = auto()  # the engine's API server answers alone: no queue, no slot
    PASS = auto()  # a slot for one pass over the prompt; no token is made
    ANSWER = auto()  # a slot for as long as an answer takes


class Entry(NamedTuple):
    """One path: `{id}` in it stands for a name."""

    path: str
    methods: tuple[str, ...] = ("POST",)
    cost: Cost = Cost.ANSWER
    model: ModelIn = ModelIn.JSON
    dialect: Dialect = Dialect.OPENAI
    streams: bool = False
    """Whether it may answer with events."""
    open: bool = False
    """Whether it needs no key."""


class Found(NamedTuple):
    """An entry that serves a request, and what stands for its {id}."""

    entry: Entry
    id: str = ""

    @property
    def path(self) -> str:
        """What to ask an engine for."""
        return self.entry.path.replace("{id}", self.id)


ROOT, ALIVE, ALIVE_ALIAS, READY = "/", "/healthz", "/health", "/readyz"
MODELS = "/v1/models"
MODEL = "/v1/models/{id}"
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
RESPONSE = "/v1/responses/{id}"
CANCEL = "/v1/responses/{id}/cancel"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
TOKENIZE = "/tokenize"
AUDIO = ("/v1/audio/transcriptions", "/v1/audio/translations")
REALTIME = "/v1/realtime"
_POOLING = (
    *("/v1/embeddings", "/v2/embed", "/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score"),
    *("/pooling", "/classify"),
)
_OWN = Entry(ROOT, ("GET", "HEAD"), Cost.NOTHING, ModelIn.NOWHERE, open=True)
_OF_AN_ID = Entry(RESPONSE, ("GET",), Cost.CHEAP, ModelIn.ID, Dialect.RESPONSES)
_MESSAGES = Entry(MESSAGES, dialect=Dialect.ANTHROPIC, streams=True)

TABLE = (
    Entry(CHAT, streams=True),
    Entry(TEXT, streams=True),
    Entry(RESPONSES, dialect=Dialect.RESPONSES, streams=True),
    _OF_AN_ID._replace(streams=True),
    _OF_AN_ID._replace(path=CANCEL, methods=("POST",)),
    _MESSAGES,
    _MESSAGES._replace(path=COUNT_TOKENS, cost=Cost.CHEAP, streams=False),
    *(Entry(path, cost=Cost.PASS) for path in _POOLING),
    Entry(TOKENIZE, cost=Cost.CHEAP),
    Entry("/detokenize", cost=Cost.CHEAP),
    *(Entry(path, model=ModelIn.FORM, streams=True) for path in AUDIO),
    Entry(REALTIME, ("GET",), model=ModelIn.SOCKET),
    Entry(MODELS, ("GET",), Cost.NOTHING, ModelIn.NOWHERE),
    Entry(MODEL, ("GET",), Cost.NOTHING, ModelIn.NOWHERE),
    *(_OWN._replace(path=path) for path in (ROOT, ALIVE, ALIVE_ALIAS, READY)),
)


class Surface:
    """What this endpoint serves."""

    def __init__(self, extra_paths: Iterable[str] = ()) -> None:
        extra = [Entry(path) for path in extra_paths if not never(path)]
        self._exact: dict[str, list[Found]] = {}
        self._patterns: list[tuple[re.Pattern[str], Entry]] = []
        for entry in (*TABLE, *extra):
            if "{id}" in entry.path:
                self._patterns.append((_pattern(entry), entry))
            else:
                self._exact.setdefault(entry.path, []).append(Found(entry))
        self.served = tuple(_shown(entry) for entry in (*TABLE, *extra) if not entry.open)

    def find(self, method: str, path: str) -> Found | Problem:
        """Who serves this; `path` decoded, without query."""
        known = self._exact.get(path) or [*self._match(path)]
        for found in known:
            if method in found.entry.methods:
                return found
        if known:
            allowed = ", ".join(name for found in known for name in found.entry.methods)
            return problems.wrong_method(method, path, allowed)
        return problems.unknown_path(method, path, self.served)

    def _match(self, path: str) -> Iterator[Found]:
        for pattern, entry in self._patterns:
            if match := pattern.fullmatch(path):
                yield Found(entry, match[1])


def never(path: str) -> bool:
    """Whether nobody may be let through to this path."""
    return path.startswith(NEVER)


def dialect(found: Found | Problem, headers: Mapping[str, str]) -> Dialect:
    """Whose envelope an error is to have; `headers` by case-insensitive names."""
    if isinstance(found, Found) and found.entry.cost is not Cost.NOTHING:
        return found.entry.dialect
    return Dialect.ANTHROPIC if "anthropic-version" in headers else Dialect.OPENAI


def _pattern(entry: Entry) -> re.Pattern[str]:
    # a model's name may have slashes and stays here; what goes on to an engine has NAME's letters
    name = "(.+)" if entry.path == MODEL else f"({NAME})"
    return re.compile(re.escape(entry.path).replace(re.escape("{id}"), name))


def _shown(entry: Entry) -> str:
    return f"{'|'.join(entry.methods)} {entry.path}"

"""vLLM's speech to text on the simulated engine: forms in, text out.

Rules: the shapes are vLLM 0.32's; a second of audio is what 32 kB are, and a few words are said in
any. The text begins with what tells this audio from others, and a whole answer also tells the
form's other fields, so that a test sees what arrived.
"""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from sim.driver import Live
from sim.openai_request import ApiError, Call, parse_call

_WORDS_TOKENS = 6
_BYTES_PER_S = 32_000
_IDS = {"transcription": "trsc", "translation": "trsl"}


@dataclass(frozen=True, slots=True)
class Form:
    """What was sent."""

    audio: bytes
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """What tells this audio from any other."""
        return hashlib.sha256(self.audio).hexdigest()[:16]


async def read(request: web.Request) -> Form:
    """The form; an ApiError when it has no file."""
    if not request.content_type.startswith("multipart/"):
        raise ApiError.invalid("missing", "body.file", "Field required", None)
    data = await request.post()
    file = data.get("file")
    if not isinstance(file, web.FileField):
        raise ApiError.invalid("missing", "body.file", "Field required", None)
    fields = {name: value for name, value in data.items() if isinstance(value, str)}
    return Form(file.file.read(), fields)


def call(form: Form, models: list[str], max_model_len: int) -> Call:
    """What the engine is to do for it."""
    data: dict[str, Any] = {"prompt": form.mark, "max_tokens": _WORDS_TOKENS}
    data |= {name: form.fields[name] for name in ("model", "stream") if name in form.fields}
    return parse_call(data, chat=False, models=models, max_model_len=max_model_len)


async def pieces(live: Live) -> AsyncIterator[str]:
    """The text as it comes."""
    while not live.done:
        for choice in await live.news():
            yield choice.take()


class Writer:
    """Writes the answer to one form."""

    def __init__(self, form: Form, path: str, model: str, created: int) -> None:
        self._form = form
        kind = "transcription" if path.endswith("transcriptions") else "translation"
        self._head = {
            "id": f"{_IDS[kind]}-{uuid4().hex}",
            "object": f"{kind}.chunk",
            "created": created,
            "model": form.fields.get("model") or model,
        }
        self._first = True

    def body(self, text: str) -> dict[str, Any]:
        """A whole answer."""
        seconds = max(1, len(self._form.audio) // _BYTES_PER_S)
        usage = {"type": "duration", "seconds": seconds}
        return {"text": f"{self._form.mark} {text}", "usage": usage, "sim": self._form.fields}

    def event(self, piece: str, finish_reason: str | None) -> bytes:
        """Some text of a streamed one."""
        text = f"{self._form.mark} {piece}" if self._first else piece
        self._first = False
        choice: dict[str, Any] = {"delta": {"content": text}}
        if finish_reason is not None:
            choice |= {"finish_reason": finish_reason, "stop_reason": None}
        return b"data: " + msgspec.json.encode(self._head | {"choices": [choice]}) + b"\n\n"

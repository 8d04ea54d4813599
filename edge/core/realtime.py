"""What the edge reads and says in a realtime session: vLLM's events, and where they name a model.

Rules: every text frame of a caller is read, since any may name a model; what can't be read as the
engine would read it does not pass. Of the engine's frames only the first is looked at.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

import msgspec

from edge.core.problems import Problem

UPDATE = "session.update"
_CREATED_LIMIT_CHARS = 1_024


class Verdict(Enum):
    """What a caller's frame is."""

    PASSES = auto()
    NAMES = auto()  # it updates the session, and names a model
    BROKEN = auto()


class Frame(NamedTuple):
    """One frame as far as the edge reads it."""

    verdict: Verdict
    model: str = ""


class _Session(msgspec.Struct):
    model: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    model: str | None = None
    session: _Session | None = None


def read(text: str) -> Frame:
    """What a caller's text frame is."""
    try:
        event = msgspec.json.decode(text, type=_Event)
    except msgspec.ValidationError:  # of other types; only what names a model is ours to judge
        return Frame(Verdict.BROKEN if UPDATE in text else Verdict.PASSES)
    except msgspec.DecodeError:
        return Frame(Verdict.BROKEN)
    model = event.model or (event.session.model if event.session else None)
    if event.type != UPDATE or not model:
        return Frame(Verdict.PASSES)
    return Frame(Verdict.NAMES, model)


def renamed(text: str, served_as: str) -> str:
    """A frame that names a model, by the name that the replica knows; vLLM's place for it."""
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    name = msgspec.Raw(msgspec.json.encode(served_as))
    fields["model"] = name
    if "session" in fields:
        session = msgspec.json.decode(fields["session"], type=dict[str, msgspec.Raw] | None)
        fields["session"] = msgspec.Raw(msgspec.json.encode((session or {}) | {"model": name}))
    return msgspec.json.encode(fields).decode()


def is_created(text: str) -> bool:
    """Whether a frame of the engine opens the session."""
    if len(text) > _CREATED_LIMIT_CHARS:
        return False
    try:
        return msgspec.json.decode(text, type=_Event).type == "session.created"
    except msgspec.DecodeError:
        return False


def created(session_id: str, now_wall_s: float) -> str:
    """What opens the session, where the edge must do it."""
    event = {"type": "session.created", "id": session_id, "created": int(now_wall_s)}
    return msgspec.json.encode(event).decode()


def error(problem: Problem) -> str:
    """A problem, as an event."""
    event = {"type": "error", "error": problem.message, "code": problem.code}
    return msgspec.json.encode(event).decode()

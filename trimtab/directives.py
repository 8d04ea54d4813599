"""What the leader has an agent do with an engine, and what came of it; as trimtab/model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drain:
    """Report an engine as DRAINING."""

    replica: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Undo Drain."""

    replica: str


@dataclass(frozen=True, slots=True)
class Restart:
    """The leader's leave to have one start of an engine ended, and another begin."""

    replica: str
    term: int
    epoch: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Restarted:
    """What came of it."""

    replica: str
    epoch: int
    ok: bool
    detail: str = ""

"""How a command ends: the exit codes scripts rely on, and the one exception that carries them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Documented and stable; a number once used is never used again."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    DENIED = 6
    TIMED_OUT = 7
    DEGRADED = 10
    DOWN = 11
    INTERRUPTED = 130


class CtlError(Exception):
    """A command cannot do its work; says what happened, why, and what to do next.

    `why` is the bare cause, for those who say the rest themselves.
    """

    def __init__(self, code: Exit, message: str, why: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.why = why

"""What was decided, in order: lines for people, and a hash over everything for machines.

Rules: the hash covers each dispatch, refusal and transition with its time, so two runs with the
same hash were the same run; lines are what a reviewer wants to see change: faults, transitions, and
a summary now and then. Nothing here depends on the process (no ids, no hash seeds).
"""

from __future__ import annotations

import hashlib


class Trace:
    """Collects decisions; `lines` is for reading."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._hash = hashlib.blake2b(digest_size=8)

    def decide(self, now_s: float, what: str, number: int, where: str) -> None:
        """One decision on one request: only hashed."""
        self._hash.update(b"%.6f %s %d %s\n" % (now_s, what.encode(), number, where.encode()))

    def note(self, now_s: float, line: str) -> None:
        """Something a reader wants to know."""
        text = f"{now_s:8.2f}  {line}"
        self.lines.append(text)
        self._hash.update(text.encode())

    def digest(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()

"""Plain events of one stream, known by their looks: they differ in nothing but their text.

Rules: what an event of plain data begins and ends with is learnt from one that was read, and
compared as bytes; what is between must be the inside of a JSON string. So events that only look
alike, as a text may quote anything, are never taken for plain, and whatever is not known is read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT = re.compile(rb'"(?:text|content|reasoning|reasoning_content|arguments)":"((?:[^"\\]|\\.)*)"')
_INSIDE = re.compile(rb'(?:[^"\\\n\r]|\\.)*')


class Plain(NamedTuple):
    """Some events, read at a glance."""

    passing: bytes
    """What the caller gets of them."""
    said: bytes
    """Their text, as it stands within quotes."""
    number: int


class Shape:
    """Of one stream's events, as they come and as they are to pass."""

    def __init__(self) -> None:
        self._before = self._after = self._seam = b""
        self._passing_before = self._passing_seam = b""

    def learn(self, data: bytes, named: bytes) -> None:
        """Events of plain data, and what passes of them; the first ones are looked at."""
        raw, passing = (some[: some.find(b"\n\n") + 2] for some in (data, named))
        found = _TEXT.search(raw)
        if found is None:
            return
        start, end = found.span(1)
        tail = raw[start:]
        if passing.endswith(tail):
            self._before, self._after = raw[:start], raw[end:]
            self._passing_before = passing[: -len(tail)]
            self._seam = self._after + self._before
            self._passing_seam = self._after + self._passing_before

    def extent(self, data: bytes) -> int:
        """How many bytes at the beginning may all be such events."""
        before, after = self._before, self._after
        if not (before and data.startswith(before)):
            return 0
        seam = data.rfind(self._seam)
        start = seam + len(after) if seam >= 0 else 0
        end = data.find(after, start + len(before))
        return end + len(after) if end >= 0 else start

    def read(self, data: bytes) -> Plain | None:
        """Events that all look so; None: look at each."""
        before, after = self._before, self._after
        if not (before and data.startswith(before) and data.endswith(after, len(before))):
            return None
        said, number = data[len(before) : -len(after)], 1
        if b'"' in said or b"\\" in said or b"\n" in said:
            # a seam is in no text: there its quotes would be escaped
            texts = said.split(self._seam)
            said, number = b"".join(texts), len(texts)
            if not _INSIDE.fullmatch(said):
                return None
            inside = self._passing_seam.join(texts)
        else:
            inside = said
        if before == self._passing_before:
            return Plain(data, said, number)
        return Plain(b"%b%b%b" % (self._passing_before, inside, after), said, number)

"""Plain events of one stream, known by their looks: they differ in nothing but their text.

Rules: what an event of plain data begins and ends with is learnt from one that was read, and
compared as bytes; what is between must be the inside of a JSON string. So events that only look
alike, as a text may quote anything, are never taken for plain, and whatever is not known is read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT = re.compile(rb'"(?:text|content|reasoning|reasoning_content|arguments)":"((?:[^"\\]|\\.)*)"')
_MARKS = b'"\\\r\n'  # of what is not simply a text
_LINE_END = ord("\n")
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

    __slots__ = ("_after", "_before", "_chunk_end", "_passing_before", "_passing_seam", "_seam")

    def __init__(self) -> None:
        self._before = self._after = self._seam = self._chunk_end = b""
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
            self._chunk_end = self._after + b"\r\n"

    def extent(self, data: bytes) -> int:
        """How many bytes at the beginning may all be such events."""
        before, after = self._before, self._after
        if not (before and data.startswith(before)):
            return 0
        seam = data.rfind(self._seam)
        start = seam + len(after) if seam >= 0 else 0
        end = data.find(after, start + len(before))
        return end + len(after) if end >= 0 else start

    def chunk(self, chunk: bytes) -> tuple[bytes, bytes] | None:
        """Of one such event that is all of an HTTP chunk: the chunk to pass, and its text.

        None: take it out of its chunk and `read` it.
        """
        before, end = self._before, self._chunk_end
        if not end or len(chunk) < 16:
            return None
        start = 4 if chunk[3] == _LINE_END else 5  # of less than 4 KiB
        size_bytes = len(chunk) - start - 2
        opening = b"%x\r\n%b" % (size_bytes, before)
        if not (chunk.startswith(opening) and chunk.endswith(end, len(opening))):
            return None
        text = chunk[len(opening) : -len(end)]
        if len(text.translate(None, _MARKS)) != len(text):
            return None
        passing_before = self._passing_before
        if passing_before == before:
            return chunk, text
        size_bytes += len(passing_before) - len(before)
        return b"%x\r\n%b%b%b" % (size_bytes, passing_before, text, end), text

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

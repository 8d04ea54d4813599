"""A form with a file in it (multipart/form-data), read as it passes: the model's name, and no more.

Rules: what comes in goes out byte for byte, but for the value of `model`, which the replica's own
name replaces (a Hole), and the parts by which a caller could help himself, which are left out. What
an engine might read otherwise than we do is refused: a part's name must be plain to see. Values
that are kept have a limit, and so have headers and the number of parts; a file has none here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from enum import Enum, auto

PARTS_LIMIT = 256
HEADERS_LIMIT_BYTES = 8 * 1024
VALUE_LIMIT_BYTES = 4 * 1024
PREAMBLE_LIMIT_BYTES = 4 * 1024
READ_NAMES = frozenset({"model", "stream"})
_BOUNDARY = re.compile(
    r"""multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]+)"|([^\s;"]+))""", re.IGNORECASE
)
_ALLOWED_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,70}")
_PARAMETER = re.compile(r';\s*([\w*-]+)=("(?:[^"\\\r\n]|\\.)*"|[^\s;"\\]+)\s*')


class MalformedError(ValueError):
    """The body is no form that can be read in one way only; says why."""


class Hole(Enum):
    """Stands for something in a body that passes."""

    MODEL = auto()


Piece = bytes | Hole


class _At(Enum):
    START = auto()
    DELIMITER = auto()
    HEADERS = auto()
    CONTENT = auto()
    END = auto()


def boundary(content_type: str) -> bytes:
    """What separates the parts; raises MalformedError."""
    match = _BOUNDARY.match(content_type)
    text = (match[1] or match[2]) if match else ""
    if not _ALLOWED_BOUNDARY.fullmatch(text):
        raise MalformedError("Content-Type must be multipart/form-data with a boundary")
    return text.encode()


def content_type(mark: bytes) -> str:
    """The header that engines get: one boundary, however the caller wrote his."""
    return f'multipart/form-data; boundary="{mark.decode()}"'


class Form:
    """Feed chunks in, get out what goes on to the engine; a chunk may end anywhere."""

    def __init__(self, boundary: bytes, dropped: Collection[str] = ()) -> None:
        self.values: dict[str, str] = {}
        """Of READ_NAMES, the first of each."""
        self.in_file = False
        """Whether the content of a file has begun."""
        self._dropped = dropped
        self._mark = b"--" + boundary
        self._rest = b""
        self._at = _At.START
        self._parts = 0
        self._passed = 0
        self._name = ""
        self._value = bytearray()

    @property
    def ended(self) -> bool:
        """Whether the last part is whole."""
        return self._at is _At.END

    def feed(self, data: bytes) -> list[Piece]:
        """What can go on now; raises MalformedError."""
        self._rest += data
        return [piece for piece in self._steps() if piece]

    def end(self) -> None:
        """Nothing more will come; raises MalformedError if that is too early."""
        if not self.ended:
            raise MalformedError("it ends before its last part does")

    def _steps(self) -> Iterator[Piece]:
        steps = {
            _At.START: self._start,
            _At.DELIMITER: self._delimiter,
            _At.HEADERS: self._headers,
            _At.CONTENT: self._content,
        }
        before: tuple[_At, int] | None = None
        while before != (self._at, len(self._rest)) and self._at is not _At.END:
            before = self._at, len(self._rest)
            yield from steps[self._at]()

    def _start(self) -> Iterator[Piece]:
        """Whatever comes before the first part is nobody's."""
        found = (b"\r\n" + self._rest).find(b"\r\n" + self._mark)
        if found >= 0:
            self._rest = self._rest[found + len(self._mark) :]
            self._at = _At.DELIMITER
        elif len(self._rest) > PREAMBLE_LIMIT_BYTES:
            raise MalformedError("no part begins with the boundary")
        yield from ()

    def _delimiter(self) -> Iterator[Piece]:
        if len(self._rest) < 2:
            return
        tail, self._rest = self._rest[:2], self._rest[2:]
        if tail == b"--":
            self._at, self._rest = _At.END, b""
            yield (b"\r\n" if self._passed else b"") + self._mark + b"--\r\n"
        elif tail == b"\r\n":
            self._at = _At.HEADERS
        else:
            raise MalformedError("a boundary is followed by something else than a line's end")

    def _headers(self) -> Iterator[Piece]:
        head, end, rest = self._rest.partition(b"\r\n\r\n")
        if len(head) > HEADERS_LIMIT_BYTES:
            raise MalformedError(f"a part's headers are longer than {HEADERS_LIMIT_BYTES} bytes")
        if not end:
            return
        self._parts += 1
        if self._parts > PARTS_LIMIT:
            raise MalformedError(f"more than {PARTS_LIMIT} parts")
        self._name, is_file = _named(head)
        self._rest, self._at = rest, _At.CONTENT
        self._value.clear()
        self.in_file = self.in_file or (is_file and self._name not in READ_NAMES)
        if is_file and self._name in READ_NAMES:
            raise MalformedError(f"{self._name} must be a text, not a file")
        if self._name not in self._dropped:
            self._passed += 1
            yield (b"\r\n" if self._passed > 1 else b"") + self._mark + b"\r\n" + head + end

    def _content(self) -> Iterator[Piece]:
        found = self._rest.find(b"\r\n" + self._mark)
        # what may be the beginning of a boundary waits for more
        until = found if found >= 0 else max(0, len(self._rest) - len(self._mark) - 1)
        content, self._rest = self._rest[:until], self._rest[until:]
        if self._name in READ_NAMES:
            self._value += content
            if len(self._value) > VALUE_LIMIT_BYTES:
                raise MalformedError(f"{self._name} is longer than {VALUE_LIMIT_BYTES} bytes")
        if self._name != "model" and self._name not in self._dropped:
            yield content
        if found < 0:
            return
        if self._name in READ_NAMES:
            self.values.setdefault(self._name, self._value.decode(errors="replace"))
        if self._name == "model":
            yield Hole.MODEL
        self._rest, self._at = self._rest[2 + len(self._mark) :], _At.DELIMITER


def _named(head: bytes) -> tuple[str, bool]:
    """A part's name, and whether it is a file."""
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        raise MalformedError("a part's headers are not UTF-8") from None
    found = [
        line.partition(":")[2].strip()
        for line in lines
        if line.partition(":")[0].strip().lower() == "content-disposition"
    ]
    if len(found) != 1 or any(line[:1].isspace() or ":" not in line for line in lines):
        raise MalformedError("a part must have one Content-Disposition, on one line")
    kind, semicolon, rest = found[0].partition(";")
    parameters: dict[str, str] = {}
    place, text = 0, semicolon + rest
    while match := _PARAMETER.match(text, place):
        name = match[1].lower()
        if name in parameters:
            raise MalformedError(f"a part's Content-Disposition has two of {name}")
        parameters[name] = match[2].strip('"')
        place = match.end()
    if kind.strip().lower() != "form-data" or place < len(text) or not parameters.get("name"):
        raise MalformedError('a part must have Content-Disposition: form-data; name="…"')
    return parameters["name"], "filename" in parameters or "filename*" in parameters

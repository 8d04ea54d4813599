"""Fields of a JSON object replaced, added or taken out, and every other byte left as it is.

Rules: the object is valid JSON (msgspec has read it); numbers, order, spaces and escapes of what is
not ours survive, as does a body of 64 MiB, which is copied once. Only where a field is given twice
is the object written anew, since of two an engine reads the last; others are lost anyway.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_SPACE = rb"[ \t\r\n]*"
_KEY = re.compile(_SPACE + rb'("[^"\\]*(?:\\.[^"\\]*)*")' + _SPACE + b":" + _SPACE, re.DOTALL)
_END = re.compile(_SPACE + rb"([,}])")

Fields = dict[str, msgspec.Raw]
Pieces = list[bytes | memoryview]


def fields(body: bytes) -> Fields:
    """The fields of an object as they stand in it, without copies; raises msgspec.DecodeError."""
    return msgspec.json.decode(body, type=Fields)


def splice(body: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """The object with these fields: new values as JSON, None for those that are to go."""
    return b"".join(pieces(body, changes))


def pieces(body: bytes, changes: Mapping[str, bytes | None]) -> Pieces:
    """The same, without copies of what stays."""
    known = fields(body)
    members = _members(body, known)
    if members is None:
        new = {name: msgspec.Raw(value) for name, value in changes.items() if value is not None}
        kept = {name: value for name, value in known.items() if name not in changes}
        return [msgspec.json.encode(kept | new)]
    whole = memoryview(body)
    made: Pieces = [body[: body.index(b"{") + 1]]
    for name, (start, value_at, end) in members.items():
        if name not in changes:
            made += whole[start:end], b","
        elif (value := changes[name]) is not None:
            made += body[start:value_at] + value, b","
    for name, value in changes.items():
        if value is not None and name not in known:
            made += msgspec.json.encode(name) + b":" + value, b","
    if len(made) > 1:
        made.pop()
    return [*made, b"}"]


def _members(body: bytes, known: Fields) -> dict[str, tuple[int, int, int]] | None:
    """Where each field begins, its value begins, and it ends; None if one is given twice.

    How long a value is, is known: nothing inside of it is looked at.
    """
    found = {}
    at = body.index(b"{") + 1
    for name, raw in known.items():
        key = _KEY.match(body, at)
        if key is None or msgspec.json.decode(key[1]) != name:
            return None
        value_at = key.end()
        end = _END.match(body, value_at + len(memoryview(raw)))
        if end is None:
            return None
        found[name] = at, value_at, end.start(1)
        at = end.end()
    # read from its end backwards, an object has one way to be cut like this: the right one
    return found if not known or not body[at:].strip() else None

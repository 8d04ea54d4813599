"""The model's name in answers: what the caller called it, not what an engine does.

Rules: only the envelope's own field is touched, found by its place and never by its looks, as a
text or a tool's arguments may hold anything. In a stream of completions all events begin alike up
to the name: what the first one taught is compared as bytes, and no other is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge.core import splice
from edge.core.surface import Dialect

_BLANK = b"\n\n"
_MODEL = b'"model":'
# In whose field of an event the model stands.
_WITHIN: Mapping[Dialect, str] = {Dialect.RESPONSES: "response", Dialect.ANTHROPIC: "message"}


def whole(body: bytes, model: msgspec.Raw, name: str) -> bytes:
    """An answer that calls the model so, under this name."""
    new = msgspec.json.encode(name)
    if bytes(model) in {new, b""}:
        return body
    try:
        return _named(body, new)
    except (msgspec.DecodeError, UnicodeDecodeError):  # no object: it names no model
        return body


class Namer:
    """Renames the events of one stream."""

    def __init__(self, dialect: Dialect, name: str) -> None:
        self._within = _WITHIN.get(dialect, "")
        self._name = msgspec.json.encode(name)
        self._before = b""
        self._after = b""

    def events(self, raw: bytes) -> bytes:
        """Whole events under the name, any number of completions'; raises msgspec.DecodeError."""
        if self._before:
            if self._before == self._after:
                return raw
            # no text has this in it: its quotes are escaped
            if raw.count(_MODEL) != raw.count(self._before):
                return self._each(raw)
            same = self._before == self._after
            return raw if same else raw.replace(self._before, self._after)
        first, mark, others = raw.partition(_BLANK)
        named = self._event(first + mark)
        return named + self.events(others) if others else named

    def _each(self, raw: bytes) -> bytes:
        *parts, last = raw.split(_BLANK)
        named = b"".join([self._event(part + _BLANK) for part in parts])
        return named + self._event(last) if last else named

    def _event(self, raw: bytes) -> bytes:
        if _MODEL not in raw:
            return raw
        start, end = raw.find(b"{"), raw.rfind(b"}") + 1  # without both it is nothing, and no JSON
        named = b"".join((raw[:start], self._payload(raw[start:end]), raw[end:]))
        if not self._within:
            self._learn(raw, named)
        return named

    def _payload(self, payload: bytes) -> bytes:
        if not self._within:
            return _named(payload, self._name)
        inner = splice.fields(payload).get(self._within)
        if inner is None:
            return payload
        return splice.splice(payload, {self._within: _named(bytes(inner), self._name)})

    def _learn(self, raw: bytes, named: bytes) -> None:
        """The next events begin as this one does, up to the end of the name."""
        at = named.find(_MODEL + self._name)
        after = named[: at + len(_MODEL + self._name)]
        rest = named[len(after) :]
        if at >= 0 and rest and raw[:at] == named[:at] and raw.endswith(rest):
            self._before, self._after = raw[: -len(rest)], after


def _named(body: bytes, name: bytes) -> bytes:
    found = splice.fields(body).get("model")
    if found is None or bytes(found) == name or not bytes(found).startswith(b'"'):
        return body
    return splice.splice(body, {"model": name})

"""One JSON line an event on stderr.

Rules: state changes are logged once, never once a poll; prompts, answers and keys never.
Pass facts with `extra={"fields": {...}}`.
"""

from __future__ import annotations

import json
import logging
import sys

import msgspec

from trimtab.runtime import clock


class JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        line: dict[str, object] = {
            "ts": round(clock.wall_s(), 3),
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # half a surrogate pair, as in a file name that is not UTF-8
            return json.dumps(line, default=str)


class Trouble:
    """What goes wrong again and again: said when it begins, and when it is over."""

    def __init__(self, logger: logging.Logger, begins: str, ends: str) -> None:
        self._log = logger
        self._begins = begins
        self._ends = ends
        self._is_on = False

    def on(self, **fields: object) -> None:
        """It went wrong."""
        if not self._is_on:
            self._is_on = True
            self._log.warning(self._begins, extra={"fields": fields})

    def off(self) -> None:
        """It went well."""
        if self._is_on:
            self._is_on = False
            self._log.info(self._ends)


def configure(service: str, level: str = "INFO") -> None:
    """Send every logger of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)

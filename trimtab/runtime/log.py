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


def configure(service: str, level: str = "INFO") -> None:
    """Send every logger of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)

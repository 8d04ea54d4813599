"""A saved state as one file that explains and proves itself: a header, records, a sum; JSON lines.

Rules: the last line has the SHA-256 of all bytes before it, so a file that was cut or changed is
known as such before anything is done with it; a value that is not text is kept as base64. It is
written beside its name, by its owner alone readable, and takes the name when it is whole.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ctl.exits import CtlError, Exit
from trimtab.views import StateHeader, StateRecord

FORMAT = 1
STDIO = "-"
FILE_LIMIT_BYTES = 512 * 1024 * 1024


def render(header: StateHeader, records: Sequence[StateRecord]) -> bytes:
    """The file's bytes."""
    first: dict[str, Any] = {
        "trimtab_snapshot": FORMAT,
        "trimtab_version": header.software_version,
        "fleet": header.fleet,
        "schema": header.schema,
        "saved_at": datetime.fromtimestamp(header.at_ms / 1000, UTC).isoformat("T", "milliseconds"),
        "revision": header.revision,
        "records": header.records,
    }
    body = b"".join(_line(part) for part in (first, *(_record(record) for record in records)))
    return body + _line({"sha256": hashlib.sha256(body).hexdigest()})


def parse(content: bytes, name: str) -> tuple[StateHeader, list[StateRecord]]:
    """What a file holds; CtlError unless it is whole and of a format that we know."""
    lines = content.splitlines(keepends=True)
    try:
        first = json.loads(lines[0])
        version = first["trimtab_snapshot"]
    except (IndexError, ValueError, KeyError, TypeError):
        raise _fault(name, "is not a snapshot of Trimtab's state") from None
    if version != FORMAT:
        raise _fault(name, f"has format {version}, and this ctl knows {FORMAT}: use a newer one")
    body = b"".join(lines[:-1])
    if lines[-1] != _line({"sha256": hashlib.sha256(body).hexdigest()}):
        raise _fault(name, "is damaged or cut off: its SHA-256 is another one")
    try:
        records = [_value(json.loads(line)) for line in lines[1:-1]]
        header = _header(first)
    except (ValueError, KeyError, TypeError) as error:
        raise _fault(name, f"has a line that is none of a snapshot: {error!r}") from None
    if len(records) != header.records:
        raise _fault(name, f"says {header.records} records and has {len(records)}")
    return header, records


def save(name: str, content: bytes) -> None:
    """Write a file, or to stdout."""
    if name == STDIO:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        _replace(pathlib.Path(name), content)
    except OSError as error:
        raise CtlError(Exit.FAILED, f"cannot write {name}: {error.strerror}") from None


def load(name: str) -> bytes:
    """Read a file, or stdin."""
    try:
        with pathlib.Path("/dev/stdin" if name == STDIO else name).open("rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise CtlError(Exit.FAILED, f"cannot read {name}: {error.strerror}") from None
    if len(content) > FILE_LIMIT_BYTES:
        raise _fault(name, f"is larger than {FILE_LIMIT_BYTES} bytes")
    return content


def _replace(path: pathlib.Path, content: bytes) -> None:
    number, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        pathlib.Path(temporary).replace(path)
    except BaseException:
        pathlib.Path(temporary).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _record(record: StateRecord) -> dict[str, str]:
    try:
        return {"key": record.key, "value": record.value.decode()}
    except UnicodeDecodeError:
        return {"key": record.key, "base64": base64.b64encode(record.value).decode()}


def _value(line: dict[str, str]) -> StateRecord:
    if "base64" in line:
        return StateRecord(line["key"], base64.b64decode(line["base64"], validate=True))
    return StateRecord(line["key"], line["value"].encode())


def _header(first: dict[str, Any]) -> StateHeader:
    return StateHeader(
        str(first["fleet"]),
        str(first["trimtab_version"]),
        int(first["schema"]),
        int(first["revision"]),
        round(datetime.fromisoformat(first["saved_at"]).timestamp() * 1000),
        int(first["records"]),
    )


def _fault(name: str, what: str) -> CtlError:
    shown = "what came in" if name == STDIO else name
    return CtlError(Exit.USAGE, f"{shown} {what}. Nothing was changed.")

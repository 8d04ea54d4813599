"""What a head must be before anything else is looked at: clear about its end, and not too large.

Rules: llhttp, strict, has refused most of what two parties could read differently; here goes what
it leaves to others: codings, hosts, versions, sizes. Several headers of one name are one list.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

from edge.core import problems
from edge.core.problems import Problem

FIELD_LIMIT_BYTES = 32 * 1024  # 8 KiB, as usual, refuses long JWTs and cookies
HEAD_LIMIT_BYTES = 64 * 1024
FIELDS_MAX = 128
URL_LIMIT_BYTES = 16 * 1024
Field = tuple[bytes, bytes]


def read(version: str, method: str, fields: list[Field]) -> dict[str, str] | Problem:
    """The headers, their names in small letters; or what is wrong with them."""
    if len(fields) > FIELDS_MAX:
        return problems.too_many_headers(FIELDS_MAX)
    headers: dict[str, str] = {}
    head_bytes = 0
    for raw_name, raw_value in fields:
        size_bytes = len(raw_name) + len(raw_value)
        head_bytes += size_bytes
        if size_bytes > FIELD_LIMIT_BYTES:
            return problems.head_too_large(FIELD_LIMIT_BYTES)
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if head_bytes > HEAD_LIMIT_BYTES:
        return problems.head_too_large(HEAD_LIMIT_BYTES)
    flaw = _flaw(version, method, headers)
    return problems.bad_request(flaw) if flaw else headers


def _flaw(version: str, method: str, headers: Mapping[str, str]) -> str:
    if version not in {"1.1", "1.0"} or method == "CONNECT":
        return "only HTTP/1.1 and 1.0 are spoken here, and not to proxies"
    if "," in headers.get("host", "," if version == "1.1" else ""):
        return "it must have one Host header"
    coding = headers.get("transfer-encoding")
    if coding is not None and (coding.lower() != "chunked" or version == "1.0"):
        return "Transfer-Encoding must be chunked"
    if coding is not None and "content-length" in headers:
        return "it has both Transfer-Encoding and Content-Length"
    return ""


def is_websocket(method: str, headers: Mapping[str, str]) -> bool:
    """Whether it asks for one as it should be asked (RFC 6455, 4.2.1)."""
    options = {option.strip() for option in headers.get("connection", "").lower().split(",")}
    try:
        nonce = base64.b64decode(headers.get("sec-websocket-key", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return (
        (method == "GET" and "upgrade" in options and len(nonce) == 16)
        and headers.get("upgrade", "").lower() == "websocket"
        and headers.get("sec-websocket-version") == "13"
    )


def head(method: str, target: bytes, version: str, fields: Iterable[Field]) -> bytes:
    """A head as it could have come."""
    lines = [b"%b: %b\r\n" % field for field in fields]
    first = b"%b %b HTTP/%b\r\n" % (method.encode(), target, version.encode())
    return b"%b%b\r\n" % (first, b"".join(lines))

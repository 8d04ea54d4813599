"""What a real vLLM said, as it was recorded."""

from __future__ import annotations

import pathlib

DATA = pathlib.Path(__file__).parents[1] / "data" / "vllm"


def body_of(recording: str) -> bytes:
    """The decoded body of a recorded chunked answer."""
    _, _, rest = (DATA / recording).read_bytes().partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
        if length == 0:
            break
    return body

"""Reading a request's body: its time, its size, its encoding.

Rules: a body is held once: what was read grows in place and becomes the body without a copy; a
caller that waits for 100 Continue gets it only when its key and the announced size are good.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

from edge.admission import RefusedError
from edge.core import encodings, problems
from edge.core.encodings import Inflater
from edge.http.body import BrokenBodyError
from edge.http.request import Request
from trimtab.runtime import clock

BODY_IDLE_S = 30.0
"""Between two parts of a body: a caller that is silent for longer has gone or means harm."""
BODY_TOTAL_S = 300.0
"""For a whole body: the largest allowed by default, over 2 Mbit/s."""
_SPECIAL = ("content-encoding", "expect")


async def read(request: Request, limit_bytes: int) -> bytes:
    """The whole body, decoded; raises RefusedError when it can't be taken."""
    if request.body.is_whole and not any(name in request.headers for name in _SPECIAL):
        whole = request.body.take()  # it came with the head: there is nothing to wait for
        if len(whole) > limit_bytes:
            raise RefusedError(problems.too_large(limit_bytes))
        return whole
    body = io.BytesIO()
    async for part in parts(request, limit_bytes):
        body.write(part)
    return body.getvalue()  # the buffer itself: nobody writes to it any more, so it is no copy


async def parts(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes, decoded; raises RefusedError when it can't be taken."""
    if int(request.headers.get("content-length", 0)) > limit_bytes:
        raise RefusedError(problems.too_large(limit_bytes))
    inflater = _inflater(request)
    _go_on(request)
    size_bytes, ends_s = 0, clock.now_s() + BODY_TOTAL_S
    try:
        while came := await _next(request, ends_s):
            for part in (came,) if inflater is None else inflater.feed(came):
                size_bytes += len(part)
                if size_bytes > limit_bytes:
                    raise RefusedError(problems.too_large(limit_bytes))
                yield part
                if inflater is not None:
                    await asyncio.sleep(0)  # others' turn: a part of it took a millisecond
        if inflater is not None:
            inflater.end()
    except encodings.BombError:
        raise RefusedError(problems.bomb(encodings.RATIO_MAX)) from None
    except encodings.BrokenError as error:
        raise RefusedError(problems.bad_body(f"can't be decompressed: {error}")) from None


def _inflater(request: Request) -> Inflater | None:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding in {"identity", ""}:
        return None
    if encoding not in encodings.KNOWN:
        raise RefusedError(problems.bad_encoding(encoding))
    return Inflater(encoding)


def _go_on(request: Request) -> None:
    """Tell a caller that asked first that its body is welcome."""
    expected = request.headers.get("expect", "")
    if not expected or request.writer.is_old:
        return
    if expected.lower() != "100-continue":
        raise RefusedError(problems.bad_expectation(expected))
    if not request.body.is_whole:
        request.writer.go_on()


async def _next(request: Request, ends_s: float) -> bytes:
    """What has come of the body; empty at its end."""
    try:
        return await request.body.more(min(BODY_IDLE_S, ends_s - clock.now_s()))
    except TimeoutError:
        raise RefusedError(problems.too_slow("rest of the request body", BODY_IDLE_S)) from None
    except BrokenBodyError:
        raise RefusedError(problems.bad_body("is not framed as its headers say")) from None

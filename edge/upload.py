"""A form with a file on its way from a caller to a replica, as it comes.

Rules: what was read is kept up to REPLAY_LIMIT_BYTES, so that another replica can be tried; beyond
that it is sent and forgotten, and whatever fails then is told. A caller who names the model after
the file makes us read all of it first: then it is held whole, within the limit of a body. A caller
who stops in the middle fails by himself; the replica is not blamed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial

from edge import attempt
from edge.admission import Permit, RefusedError
from edge.attempt import Errand, Result
from edge.core import problems
from edge.core.multipart import Form, Hole, MalformedError, Piece
from edge.core.openai import PRIVILEGED_FIELDS
from edge.core.problems import Problem
from edge.upstream import Upstream
from trimtab.runtime import clock

REPLAY_LIMIT_BYTES = 1024 * 1024  # half a minute of speech as most record it
READ_LEAST_BYTES = 16 * 1024  # so that a caller who trickles does not make us keep crumbs


class Upload:
    """One of them."""

    def __init__(self, parts: AsyncIterator[bytes], boundary: bytes) -> None:
        self._parts = parts
        self._form = Form(boundary, PRIVILEGED_FIELDS)
        self._kept: list[Piece] = []
        self._kept_bytes = 0
        self._all_read = False
        self._reading = False
        self._all_here = True
        self.problem: Problem | None = None
        """What was wrong with it, found on the way."""
        self.on_sent: Callable[[], None] = lambda: None
        """Called when a replica has got all of it."""

    @property
    def can_replay(self) -> bool:
        """Whether it can be sent from its beginning; not while somebody still reads for another."""
        return self._all_here and not self._reading

    @property
    def model(self) -> str | None:
        """What it asks for, as far as is known; nothing is nothing."""
        return self._form.values.get("model") or None

    @property
    def streams(self) -> bool:
        """Whether the answer is to come as events, as far as is known."""
        return self._form.values.get("stream", "").lower() in {"true", "1", "on", "yes", "t", "y"}

    async def peek(self) -> None:
        """Read until the file begins and the model is known; raises RefusedError."""
        while not self._all_read and not (self._form.in_file and self.model is not None):
            await self._read()

    async def body(self, served_as: str) -> AsyncIterator[bytes]:
        """All of it, to a replica that knows the model by this name; raises RefusedError."""
        name, sent = served_as.encode(), 0
        while True:
            if not self._all_read and self._kept_bytes > REPLAY_LIMIT_BYTES:
                self._all_here = False
            if not self._all_here:
                del self._kept[:sent]
                sent = 0
            while sent < len(self._kept):
                piece = self._kept[sent]
                sent += 1
                yield name if isinstance(piece, Hole) else piece
            if self._all_read:
                self.on_sent()
                return
            await self._read()

    async def _read(self) -> None:
        """Read more, or learn that there is no more."""
        whole, self._reading = False, True
        came = bytearray()
        try:
            while len(came) < READ_LEAST_BYTES and not whole:
                part = await anext(self._parts, None)
                whole = part is None
                came += part or b""
            pieces = self._form.feed(bytes(came))
            if whole:
                self._form.end()
        except RefusedError as error:
            self.problem = error.problem
            raise
        except MalformedError as error:
            self.problem = problems.bad_form(str(error))
            raise RefusedError(self.problem) from error
        except BaseException:  # whoever was to read it is gone, and so is what he read
            self._all_here = False
            raise
        finally:
            self._reading = False
        self._kept.extend(pieces)
        self._kept_bytes += len(came)
        self._all_read = whole


class Carried:
    """An upload that a carrier takes to replicas; a Passing of the course."""

    response = None

    def __init__(self, upload: Upload, carrier: Upstream) -> None:
        self._upload = upload
        self._carrier = carrier

    @property
    def can_retry(self) -> bool:
        """Whether another replica can be tried."""
        return self._upload.can_replay

    async def attempt(self, errand: Errand) -> Result:
        """Send it, relay the answer."""
        errand.permit.speaking = True
        self._upload.on_sent = partial(_sent, errand.permit)
        return await attempt.run(self._carrier, errand)


def _sent(permit: Permit) -> None:
    permit.speaking, permit.asked_s = False, clock.now_s()

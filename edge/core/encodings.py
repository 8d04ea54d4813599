"""Compressed request bodies, opened within bounds.

Rules: what comes out is handed on in pieces, so that nobody waits long for one; more than
RATIO_MAX times what came in is a bomb, once it is more than a small body; what is not known is
refused, and so is more than one encoding or more than one stream in a body.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

KNOWN = ("gzip", "deflate")
RATIO_MAX = 200
SMALL_BYTES = 1024 * 1024  # may have any ratio: a page of blanks is no bomb
PIECE_BYTES = 256 * 1024


class BombError(Exception):
    """It grows beyond all reason."""


class BrokenError(Exception):
    """It is not what its content-encoding says."""


class Inflater:
    """Opens one body."""

    def __init__(self, encoding: str) -> None:
        self._gzip = encoding == "gzip"
        self._stream: zlib._Decompress | None = None
        self._in_bytes = 0
        self._out_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What this part of the body becomes; raises BombError, BrokenError."""
        if not data:
            return
        stream = self._stream = self._stream or self._begin(data)
        self._in_bytes += len(data)
        piece = b""
        while (data or len(piece) == PIECE_BYTES) and not stream.eof:
            piece = self._piece(stream, data)
            self._out_bytes += len(piece)
            if self._out_bytes > max(SMALL_BYTES, RATIO_MAX * self._in_bytes):
                raise BombError
            yield piece
            data = stream.unconsumed_tail
        if stream.unused_data or (data and stream.eof):
            raise BrokenError("something follows its end")

    def end(self) -> None:
        """The body has ended; raises BrokenError if that is too early."""
        if self._stream is None or not self._stream.eof:
            raise BrokenError("it ends too early")

    def _begin(self, data: bytes) -> zlib._Decompress:
        if self._gzip:
            return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        # "deflate" means zlib's format; some send it without zlib's head
        headed = data[0] & 0x0F == zlib.DEFLATED
        return zlib.decompressobj(wbits=zlib.MAX_WBITS if headed else -zlib.MAX_WBITS)

    def _piece(self, stream: zlib._Decompress, data: bytes) -> bytes:
        try:
            return stream.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise BrokenError(str(error)) from error

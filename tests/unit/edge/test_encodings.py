"""edge/core/encodings: the same bytes whatever the splits, and no bombs."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import encodings
from edge.core.encodings import BombError, BrokenError, Inflater


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", raw_deflate),
}


def opened(encoding: str, parts: list[bytes]) -> bytes:
    inflater = Inflater(encoding)
    pieces = [piece for part in parts for piece in inflater.feed(part)]
    inflater.end()
    assert all(len(piece) <= encodings.PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("packer", PACKERS)
@given(data=st.binary(max_size=500), cuts=st.lists(st.integers(0, 600), max_size=6))
def test_what_was_packed_comes_out(packer: str, data: bytes, cuts: list[int]) -> None:
    encoding, pack = PACKERS[packer]
    packed = pack(data)
    at = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    assert opened(encoding, [packed[a:b] for a, b in itertools.pairwise(at)]) == data


@pytest.mark.parametrize("packer", PACKERS)
def test_long_ones_come_in_pieces(packer: str) -> None:
    encoding, pack = PACKERS[packer]
    data = b"0123456789abcdef" * 60_000  # under SMALL_BYTES, so any ratio goes
    assert opened(encoding, [pack(data)]) == data


@pytest.mark.parametrize("packer", PACKERS)
@given(data=st.binary(min_size=1, max_size=100), cut=st.integers(1, 12))
def test_what_ends_early_or_goes_on_is_broken(packer: str, data: bytes, cut: int) -> None:
    encoding, pack = PACKERS[packer]
    packed = pack(data)
    with pytest.raises(BrokenError):
        opened(encoding, [packed[: max(1, len(packed) - cut)]])
    with pytest.raises(BrokenError):
        opened(encoding, [packed + b"x"])
    with pytest.raises(BrokenError):
        opened(encoding, [packed, b"x"])


@pytest.mark.parametrize("encoding", encodings.KNOWN)
def test_an_empty_body_is_not_a_packed_one(encoding: str) -> None:
    with pytest.raises(BrokenError):
        opened(encoding, [])


@pytest.mark.parametrize("encoding", encodings.KNOWN)
@given(data=st.binary(min_size=1, max_size=64))
def test_any_bytes_are_opened_or_refused(encoding: str, data: bytes) -> None:
    with contextlib.suppress(BrokenError):
        opened(encoding, [data])


@pytest.mark.parametrize("packer", PACKERS)
def test_a_bomb_is_seen_before_it_has_gone_off(packer: str) -> None:
    encoding, pack = PACKERS[packer]
    packed = pack(bytes(32 * 1024 * 1024))
    inflater, seen = Inflater(encoding), [0]

    def explode() -> None:
        for at in range(0, len(packed), 1_000):
            for piece in inflater.feed(packed[at : at + 1_000]):
                seen[0] += len(piece)

    with pytest.raises(BombError):
        explode()
    assert seen[0] <= encodings.SMALL_BYTES

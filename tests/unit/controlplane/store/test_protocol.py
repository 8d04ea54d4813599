"""The rules that every adapter shares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.store.protocol import Put, check_key, check_txn, prefix_end


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", b"b"), (b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff\xff", None), (b"", None)],
)
def test_prefix_end(prefix: bytes, end: bytes | None) -> None:
    assert prefix_end(prefix) == end


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_the_range_is_the_prefix(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    inside = prefix <= key and (end is None or key < end)
    assert inside == key.startswith(prefix)


@pytest.mark.parametrize("key", ["", "x" * 1025, "ж" * 513])
def test_bad_keys(key: str) -> None:
    with pytest.raises(ValueError, match="1 to 1024 bytes"):
        check_key(key)


def test_too_much_at_once() -> None:
    check_txn([], [Put(f"{number}", b"") for number in range(128)])
    with pytest.raises(ValueError, match="at most 128"):
        check_txn([], [Put(f"{number}", b"") for number in range(129)])

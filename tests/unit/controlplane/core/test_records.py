"""What the store keeps must be readable by the next version, and survive a bad record."""

from __future__ import annotations

import pytest

from controlplane.core.records import (
    ReplicaRecord,
    Wish,
    pack,
    pack_term,
    unpack,
    unpack_term,
)
from tests.fakes.peers import facts
from trimtab.model import Intent, Serving


def test_records_come_back() -> None:
    record = ReplicaRecord("n1", facts("r1"), Serving.OPEN)
    wish = Wish(Intent.DRAINING, "fan", "ada", 1.5)
    assert unpack(pack(record), ReplicaRecord) == record
    assert unpack(pack(wish), Wish) == wish
    assert pack(record) == pack(ReplicaRecord("n1", facts("r1"), Serving.OPEN))


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[]", b'{"intent": 99}', b'{"intent": "x"}', b"\xff"]
)
def test_what_cannot_be_read_is_none(value: bytes) -> None:
    assert unpack(value, Wish) is None


def test_a_newer_version_may_add_fields() -> None:
    assert unpack(b'{"intent": 2, "colour": "red"}', Wish) == Wish(Intent.CORDONED)


@pytest.mark.parametrize(("value", "term"), [(b"7", 7), (b"", 0), (b"x", 0), (b"-1", 0)])
def test_terms(value: bytes, term: int) -> None:
    assert unpack_term(value) == term
    assert unpack_term(pack_term(12)) == 12

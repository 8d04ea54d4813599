"""The chain of what people changed: what is cut, changed or added shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import audit
from controlplane.core.audit import ENTRIES, NEWEST_KEY, Deed, carry_over, follow, key
from controlplane.core.bounds import TEXT_LIMIT_CHARS
from trimtab.steered import AUDIT_MAX, AuditEntry, Order, fault

ADA = Order("ada", "fan")


def chain(length: int, start: AuditEntry | None = None) -> list[AuditEntry]:
    """Entries that follow each other."""
    found, last = [], start
    for number in range(length):
        last = follow(last, 100 + number, Deed(ADA, "intent", f"r{number}", "ACTIVE", "SPARE"), 5)
        found.append(last)
    return found


def records(entries: list[AuditEntry]) -> dict[str, bytes]:
    """As the store holds them."""
    held = {key(one.number): audit.pack_entry(one) for one in entries}
    return held | ({NEWEST_KEY: audit.pack_entry(entries[-1])} if entries else {})


def test_an_entry_follows_the_one_before() -> None:
    first, second = chain(2)
    assert (first.number, first.previous, first.previous_revision) == (1, "", 100)
    assert (second.number, second.previous, second.previous_revision) == (2, first.hash, 101)
    assert fault([first, second], second) == ""


def test_what_people_write_is_bounded() -> None:
    long = "x" * 10_000
    entry = follow(None, 0, Deed(Order(long, long), long, long, long, long), 0)
    assert len(audit.pack_entry(entry)) < 7 * TEXT_LIMIT_CHARS


def test_the_oldest_goes() -> None:
    assert audit.dropped(AUDIT_MAX) is None
    assert audit.dropped(AUDIT_MAX + 1) == key(1)
    late = chain(2, replace(chain(1)[0], number=10 * AUDIT_MAX))
    assert late[0].number == 10 * AUDIT_MAX + 1


THREE = chain(3)


@pytest.mark.parametrize(
    ("entries", "newest", "said"),
    [
        (THREE, THREE[2], ""),
        (THREE[1:], THREE[2], "entry 1 is missing"),
        ([THREE[0], THREE[2]], THREE[2], "entry 2 is missing"),
        (THREE[:2], THREE[2], "entry 3 is missing"),
        (THREE, THREE[1], "entries are there twice"),
        ([*THREE[:2], replace(THREE[2], actor="bob")], THREE[2], "entry 3 was changed after"),
        ([*THREE[:2], chain(3, None)[2]], replace(THREE[2], hash="x"), "entry 3 is not the one"),
        ([THREE[0], *chain(2, chain(1, THREE[0])[0])], THREE[2], "entry 2 is missing"),
    ],
)
def test_faults(entries: list[AuditEntry], newest: AuditEntry, said: str) -> None:
    assert fault(entries, newest).startswith(said)
    assert bool(fault(entries, newest)) == bool(said)


def test_a_forged_entry_does_not_follow() -> None:
    other = follow(THREE[0], 999, Deed(ADA, "intent", "another"), 5)
    assert (
        fault([THREE[0], other, THREE[2]], THREE[2]) == "entry 3 does not follow the one before it"
    )


@given(
    index=st.integers(0, 2),
    field=st.sampled_from(["actor", "action", "target", "before", "after", "reason", "at_ms"]),
)
def test_any_change_shows(index: int, field: str) -> None:
    entry = THREE[index]
    value = 6 if field == "at_ms" else f"{getattr(entry, field)}!"
    changed = [*THREE[:index], replace(entry, **{field: value}), *THREE[index + 1 :]]  # type: ignore[arg-type]
    assert fault(changed, THREE[2]) == f"entry {index + 1} was changed after it was written"


@pytest.mark.parametrize(("have", "want", "kept"), [(3, 1, 3), (3, 3, 3), (1, 3, 3), (0, 2, 2)])
def test_a_restore_makes_no_record_shorter(have: int, want: int, kept: int) -> None:
    ours, theirs = chain(have), chain(want)
    found = carry_over({**records(ours), "trimtab/a": b"1"}, {**records(theirs), "trimtab/b": b"2"})
    assert sum(name.startswith(ENTRIES) for name in found) == kept
    assert "trimtab/b" in found
    assert "trimtab/a" not in found

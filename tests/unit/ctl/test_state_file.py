"""The file of a saved state: what goes in comes out; what was touched is refused."""

from __future__ import annotations

import hashlib
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl import state_file
from ctl.exits import CtlError
from trimtab.views import StateHeader, StateRecord

RECORDS = [StateRecord("trimtab/term", b"7"), StateRecord("trimtab/x/\n", b"\xff\r\n\x00")]
HEADER = StateHeader("lab", "0.1.0", 1, 412, 1_700_000_000_123, len(RECORDS))
CONTENT = state_file.render(HEADER, RECORDS)

texts = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(st.builds(StateRecord, texts, st.binary(max_size=50)), max_size=5), texts)
def test_what_goes_in_comes_out(records: list[StateRecord], fleet: str) -> None:
    header = StateHeader(fleet, "0.1.0", 3, 2**60, 1_700_000_000_000, len(records))
    assert state_file.parse(state_file.render(header, records), "f") == (header, records)


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: int, flip: int) -> None:
    changed = CONTENT[:at] + bytes([CONTENT[at] ^ flip]) + CONTENT[at + 1 :]
    with pytest.raises(CtlError, match="Nothing was changed"):
        state_file.parse(changed, "f")


@given(st.integers(0, len(CONTENT) - 1))
def test_a_cut_file_is_noticed(length: int) -> None:
    with pytest.raises(CtlError, match="Nothing was changed"):
        state_file.parse(CONTENT[:length], "f")


def signed(*lines: object) -> bytes:
    """A file whose sum is right."""
    body = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    return body + b'{"sha256":"%s"}\n' % hashlib.sha256(body).hexdigest().encode()


FIRST = json.loads(CONTENT.splitlines()[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a snapshot"),
        (b"[]\n", "is not a snapshot"),
        (signed(FIRST | {"trimtab_snapshot": 2}), "has format 2, and this ctl knows 1"),
        (signed(FIRST), "says 2 records and has 0"),
        (signed(FIRST, {"key": "a"}), "has a line that is none of a snapshot"),
        (signed(FIRST, {"key": "a", "base64": "!"}), "has a line that is none of a snapshot"),
        (signed({"trimtab_snapshot": 1}), "has a line that is none of a snapshot"),
        (CONTENT + b"more\n", "is damaged or cut off"),
    ],
)
def test_what_is_no_snapshot_is_named(content: bytes, words: str) -> None:
    with pytest.raises(CtlError, match="the file") as caught:
        state_file.parse(content, "the file")
    assert words in str(caught.value)


def test_it_is_its_owners_alone_and_replaces_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"older")
    path.chmod(0o644)
    state_file.save(str(path), CONTENT)
    assert state_file.load(str(path)) == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_or_read_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CtlError, match=r"cannot write .*: No such file or directory"):
        state_file.save(str(tmp_path / "none" / "state"), CONTENT)
    with pytest.raises(CtlError, match=r"cannot read .*: Is a directory"):
        state_file.load(str(tmp_path))
    state_file.save(str(tmp_path / "state"), CONTENT)
    monkeypatch.setattr(state_file, "FILE_LIMIT_BYTES", len(CONTENT) - 1)
    with pytest.raises(CtlError, match="is larger than"):
        state_file.load(str(tmp_path / "state"))

"""`ctl snapshot`: saved whole, shown, restored only after a yes."""

from __future__ import annotations

import pathlib

import grpc
import pytest

from ctl import state_file
from ctl.exits import Exit
from ctl.main import main
from tests.fakes.admin import FakeAdmin

STATE = {"trimtab/intents/gpu0": b"{}", "trimtab/replicas/gpu0": b"\xff", "trimtab/term": b"7"}


@pytest.fixture
def file(admin: FakeAdmin, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A saved STATE."""
    admin.state = dict(STATE)
    name = str(tmp_path / "state.jsonl")
    assert main(["-s", admin.target, "snapshot", "save", name]) == Exit.OK
    assert "3 records, 1 intents, 1 replicas" in capsys.readouterr().err
    return name


def test_show(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "show", file]) == Exit.OK
    assert capsys.readouterr().out == (
        "fleet lab-a of 2023-11-14 22:13:20 UTC: 3 records, 1 intents, 1 replicas\n"
        "by trimtab 0.1.0, schema 1, revision 412\n"
    )


def test_restore_says_what_it_does(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.state = {"trimtab/term": b"9", "trimtab/intents/gpu1": b"{}"}
    words = ["-s", admin.target, "snapshot", "restore", file, "--yes", "--reason", "oops"]
    assert main(words) == Exit.OK
    assert admin.state == STATE
    assert [(r.preview, r.expected, r.reason) for r in admin.restores] == [
        (True, 3, "oops"),
        (False, 3, "oops"),
    ]
    assert admin.restores[1].actor
    streams = capsys.readouterr()
    assert "fleet lab-a: 2 records added, 1 changed, 1 removed" in streams.err
    assert streams.out == "fleet lab-a restored: 2 records added, 1 changed, 1 removed\n"


def test_nobody_to_ask_changes_nothing(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-s", admin.target, "snapshot", "restore", file]) == Exit.USAGE
    assert [r.preview for r in admin.restores] == [True]
    assert "say --yes. Nothing was changed." in capsys.readouterr().err


def test_a_damaged_file_is_not_even_sent(admin: FakeAdmin, file: str) -> None:
    path = pathlib.Path(file)
    path.write_bytes(path.read_bytes()[:-20])
    assert main(["-s", admin.target, "snapshot", "restore", file, "--yes"]) == Exit.USAGE
    assert admin.restores == []


def test_a_refusal_is_told(admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    admin.refusal = (grpc.StatusCode.FAILED_PRECONDITION, "nothing was changed: schema 9")
    assert main(["-s", admin.target, "snapshot", "restore", file, "--yes"]) == Exit.CONFLICT
    assert "ctl: nothing was changed: schema 9" in capsys.readouterr().err


def test_a_dash_is_stdout(admin: FakeAdmin, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    admin.state = dict(STATE)
    assert main(["-s", admin.target, "snapshot", "save", "-"]) == Exit.OK
    _, records = state_file.parse(capfdbinary.readouterr().out, "-")
    assert {record.key: record.value for record in records} == STATE


@pytest.mark.parametrize(("answer", "code"), [(True, Exit.OK), (False, Exit.FAILED)])
def test_a_person_is_asked(
    admin: FakeAdmin, file: str, monkeypatch: pytest.MonkeyPatch, answer: bool, code: Exit
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer)
    assert main(["-s", admin.target, "snapshot", "restore", file]) == code
    assert [r.preview for r in admin.restores] == [True, False][: 1 + answer]
